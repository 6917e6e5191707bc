import pytest

from server.domain.checks import Checks
from server.domain.secret import check_secrets


@pytest.mark.parametrize(
    ("secrets", "paths"),
    [
        ({"TOKEN": "abcd"}, []),
        ({"KEY": "-----BEGIN\nabc\n-----END"}, []),
        ({"TOKEN": "abc"}, ["secrets[TOKEN]"]),
        ({"A": "", "B": "ok-ay", "C": "é€"}, ["secrets[A]", "secrets[C]"]),
        ({"LINES": "ab\ncd\nef"}, ["secrets[LINES]"]),
        ({"A-B": "long enough"}, ["secrets[A-B]"]),
    ],
)
def test_a_secret_that_cannot_be_masked_is_refused_by_its_name(secrets, paths):
    checks = Checks()
    check_secrets(checks, secrets)
    assert [violation.field for violation in checks.violations] == paths
    for value in filter(None, secrets.values()):
        assert all(value not in violation.description for violation in checks.violations)
