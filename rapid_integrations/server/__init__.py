"""RAPID over HTTP: a server, its page, engines and drafters on other machines."""
