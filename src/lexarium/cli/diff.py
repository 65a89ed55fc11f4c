def diff() -> None:
    """x"""
