"""`python -m rapid_integrations` is the `rapid` command."""

from rapid_integrations.cli import app

if __name__ == "__main__":
    app()
