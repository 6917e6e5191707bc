"""What the command sends an issuer."""

import pytest

from cli.failure import CommandFailed
from cli.oidc_login import _challenge, _code, _get


def test_the_challenge_is_that_of_the_standard():
    """RFC 7636, appendix B."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert _challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize("said", [{}, {"state": "other", "code": "c"}, {"code": "c"}])
def test_an_answer_to_another_login_is_refused(said):
    with pytest.raises(CommandFailed, match="another login"):
        _code(said, "state")


def test_a_refusal_is_told():
    with pytest.raises(CommandFailed, match="the issuer refuses: not today"):
        _code({"state": "s", "error": "access_denied", "error_description": "not today"}, "s")


def test_an_issuer_is_not_asked_in_plain_text_over_a_network():
    with pytest.raises(CommandFailed, match="is not https"):
        _get("http://192.0.2.1/")
