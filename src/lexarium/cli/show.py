def show() -> None:
    """x"""
