"""Where a person's tokens are kept: the system's keyring, else a file that only they can read.

The keyring is used where the package `keyring` is installed and finds one that works;
`MUSTER_KEYRING=off` keeps to the file.
"""

import os
import sys
from pathlib import Path
from typing import Protocol

from cli import contexts
from cli.failure import CommandFailed

SERVICE = "muster"
FILE = "credentials.json"


class Vault(Protocol):
    """Keeps one token for each server."""

    def where(self) -> str:
        """Return what people call it."""

    def get(self, server: str) -> str:
        """Return a server's token, or an empty text."""

    def put(self, server: str, token: str) -> None:
        """Keep a server's token."""

    def drop(self, server: str) -> bool:
        """Forget a server's token; return whether there was one."""


class FileVault:
    """Tokens in a file of mode 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def where(self) -> str:
        """See Vault."""
        return str(self._path)

    def get(self, server: str) -> str:
        """See Vault."""
        self._refuse_open()
        return str(contexts.read_json(self._path).get(server, ""))

    def put(self, server: str, token: str) -> None:
        """See Vault."""
        contexts.write_json(self._path, {**contexts.read_json(self._path), server: token})

    def drop(self, server: str) -> bool:
        """See Vault."""
        kept = contexts.read_json(self._path)
        had = kept.pop(server, None) is not None
        if had:
            contexts.write_json(self._path, kept)
        return had

    def _refuse_open(self) -> None:
        """Refuse a file that others could have read.

        Raises:
            CommandFailed: others may read it.
        """
        try:
            mode = self._path.stat().st_mode & 0o077
        except OSError:
            return
        if mode and os.name == "posix":
            raise CommandFailed(
                f"{self._path} can be read by others; revoke the tokens in it, or if nobody else "
                f"was there: chmod 600 {self._path}"
            )


class KeyringVault:
    """Tokens in the system's keyring."""

    def __init__(self) -> None:
        import keyring  # late and optional: most machines that run this have none

        self._keyring = keyring

    def where(self) -> str:
        """See Vault."""
        return "the keyring"

    def get(self, server: str) -> str:
        """See Vault."""
        return self._keyring.get_password(SERVICE, server) or ""

    def put(self, server: str, token: str) -> None:
        """See Vault."""
        self._keyring.set_password(SERVICE, server, token)

    def drop(self, server: str) -> bool:
        """See Vault."""
        if not self.get(server):
            return False
        self._keyring.delete_password(SERVICE, server)
        return True


def vault() -> Vault:
    """Return where tokens are kept on this machine."""
    return _keyring() or FileVault(contexts.folder() / FILE)


def token_for(server: str) -> str:
    """Return the token to show a server, or an empty text.

    `MUSTER_TOKEN` is for where nobody is there to log in, and `MUSTER_TOKEN_FILE` for where that
    would be seen.

    Raises:
        CommandFailed: the file, or what is kept, cannot be read.
    """
    if token := os.environ.get("MUSTER_TOKEN", "").strip():
        return token
    if file := os.environ.get("MUSTER_TOKEN_FILE"):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandFailed(f"cannot read MUSTER_TOKEN_FILE {file}: {error}") from None
    path = contexts.folder() / FILE
    if path.exists() and (token := FileVault(path).get(server)):
        return token
    # A keyring takes long to ask; who has never logged in is not kept waiting.
    if contexts.load().of_server(server) and (ring := _keyring()) is not None:
        return ring.get(server)
    return ""


def _keyring() -> KeyringVault | None:
    """Return the keyring, where there is one that works."""
    if os.environ.get("MUSTER_KEYRING") == "off":
        return None
    try:
        import keyring
        from keyring.backends.fail import Keyring as NoKeyring

        if isinstance(keyring.get_keyring(), NoKeyring):
            return None
        keyring.get_password(SERVICE, "")
        return KeyringVault()
    except ImportError:
        return None
    except Exception as error:  # each system's keyring fails in its own way
        print(f"The keyring does not work ({error}); a file is used.", file=sys.stderr)  # noqa: T201
        return None
