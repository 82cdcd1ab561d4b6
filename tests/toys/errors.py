"""What tests look at in an error: its code, which stays while its words may change."""


def coded(code):
    """Return a check for `pytest.raises`: the error has this code."""
    return lambda error: error.code == code
