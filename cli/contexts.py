"""Which servers a person works with, and what is remembered of each.

`contexts.json` in the user's configuration folder names them; it holds no secret. A variable or an
option beats it. `MUSTER_CONFIG_DIR` names another folder.
"""

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from cli.failure import CommandFailed

FOLDER_VARIABLE = "MUSTER_CONFIG_DIR"


@dataclass(frozen=True)
class Context:
    """One server, as one person uses it."""

    server: str
    namespace: str = ""
    tls: bool = False
    """Encrypted, with a certificate of an authority that this system trusts."""
    tls_ca: str = ""
    """Encrypted, with a certificate of the authority in this file."""
    tls_cert: str = ""
    """A certificate of one's own, for a server that asks for one."""
    tls_key: str = ""
    insecure: bool = False
    """Whether tokens may be sent in plain text to another machine."""


@dataclass
class Contexts:
    """All of them, and the one that is used when nobody names another."""

    current: str = ""
    named: dict[str, Context] = field(default_factory=dict)

    def of_server(self, server: str) -> str:
        """Return the name of the context with this server, or an empty text."""
        return next((name for name, each in self.named.items() if each.server == server), "")


def folder() -> Path:
    """Return where contexts and, without a keyring, tokens are kept."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else platformdirs.user_config_path("muster")


def load() -> Contexts:
    """Return what is remembered; nothing where there is no file.

    Raises:
        CommandFailed: the file cannot be read, or is not ours.
    """
    data = read_json(folder() / "contexts.json")
    try:
        named = {name: Context(**each) for name, each in data.get("contexts", {}).items()}
        return Contexts(str(data.get("current", "")), named)
    except (TypeError, AttributeError) as error:
        path = folder() / "contexts.json"
        raise CommandFailed(f"{path} is damaged ({error}); mend or remove it") from None


def save(contexts: Contexts) -> None:
    """Remember contexts.

    Raises:
        CommandFailed: the file cannot be written.
    """
    named = {name: asdict(context) for name, context in contexts.named.items()}
    write_json(folder() / "contexts.json", {"current": contexts.current, "contexts": named})


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file, an empty one where there is no file.

    Raises:
        CommandFailed: it cannot be read, or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CommandFailed(f"cannot read {path}: {error}; mend or remove it") from None
    if not isinstance(data, dict):
        raise CommandFailed(f"{path} is damaged; mend or remove it")
    return data


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Put an object into a file that only its owner reads; the old file stays until then.

    Raises:
        CommandFailed: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(data, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}") from None
