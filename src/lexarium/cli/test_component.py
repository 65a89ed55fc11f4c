def run_contract() -> None:
    """x"""
