import typer

app = typer.Typer()


@app.command("status")
def status() -> None:
    """x"""
