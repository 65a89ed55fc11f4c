def sample() -> None:
    """x"""
