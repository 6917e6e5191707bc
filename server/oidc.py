"""People who log in elsewhere: ID tokens of one OpenID Connect issuer, checked and mapped to roles.

The command line does the login (authorization code with PKCE) and hands in the ID token. Its keys
come from the issuer's own pages, which are asked again when a key is unknown, and now and then.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from server.domain.access import Role
from server.domain.errors import Forbidden, StoreUnavailable, Unauthenticated
from server.domain.granting import ANYBODY, Grant
from server.domain.token import EVERYWHERE
from server.engine.clock import Clock

if TYPE_CHECKING:
    from httpx2 import Response

ALGORITHMS = ["RS256", "ES256"]
KEPT_SECONDS = 600.0
RETRY_SECONDS = 10.0
ANSWER_SECONDS = 5.0
LEEWAY_SECONDS = 60

_METADATA = "/.well-known/openid-configuration"
_REQUIRED = ["exp", "iat", "aud", "iss", "sub", "nonce"]


@dataclass(frozen=True, slots=True)
class Person:
    """Who has logged in, and as what."""

    name: str
    role: Role
    namespace: str


class OidcIssuer:
    """See the module."""

    def __init__(
        self,
        issuer: str,
        client_id: str,
        grants: Sequence[Grant],
        groups_claim: str,
        clock: Clock,
        client_secret: str = "",
    ) -> None:
        import httpx2  # late, both: most servers have no issuer
        import jwt

        self._http, self._jwt = httpx2, jwt
        self.client_secret = client_secret
        """Of an installed program: no secret, whatever it is called."""
        self.issuer = issuer
        self.client_id = client_id
        self._grants = grants
        self._groups_claim = groups_claim
        self._clock = clock
        self._keys: dict[str, Any] = {}
        self._read_at = float("-inf")
        self._tried_at = float("-inf")

    async def person(self, id_token: str, nonce: str, namespace: str) -> Person:
        """Return who an ID token is of; `namespace` is the one asked for, or empty.

        Raises:
            Unauthenticated: the token does not count.
            Forbidden: nothing is granted to its bearer there.
            StoreUnavailable: the issuer does not answer.
        """
        claims = await self._claims(id_token)
        if not nonce or not hmac.compare_digest(str(claims["nonce"]).encode(), nonce.encode()):
            raise Unauthenticated("The ID token was made for another login.")
        name = _name_of(claims)
        said = claims.get(self._groups_claim, [])
        groups = {said} if isinstance(said, str) else set(map(str, said or []))
        for grant in self._grants:
            belongs = grant.group == ANYBODY or grant.group in groups
            if belongs and (not namespace or grant.namespace in (namespace, EVERYWHERE)):
                return Person(name, grant.role, grant.namespace)
        where = f"namespace {namespace!r}" if namespace else "any namespace"
        raise Forbidden(name, f"anything in {where}: no group of theirs is granted that")

    async def _claims(self, id_token: str) -> dict[str, Any]:
        try:
            kid = self._jwt.get_unverified_header(id_token).get("kid")
        except self._jwt.InvalidTokenError:
            raise Unauthenticated("That is no ID token.") from None
        key = await self._key(kid)
        try:
            claims: dict[str, Any] = self._jwt.decode(
                id_token,
                key,
                algorithms=ALGORITHMS,
                audience=self.client_id,
                issuer=self.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": _REQUIRED},
            )
        except self._jwt.InvalidTokenError as error:
            raise Unauthenticated(f"The ID token does not count: {error}.") from None
        return claims

    async def _key(self, kid: str | None) -> Any:  # noqa: ANN401 (a key of either algorithm)
        now = self._clock.monotonic()
        stale = now - self._read_at > KEPT_SECONDS
        if (stale or self._found(kid) is None) and now - self._tried_at > RETRY_SECONDS:
            self._tried_at = now
            self._keys = await self._read_keys()
            self._read_at = self._clock.monotonic()
        key = self._found(kid)
        if key is None:
            raise Unauthenticated("The ID token is signed with a key its issuer does not show.")
        return key

    def _found(self, kid: str | None) -> Any:  # noqa: ANN401 (a key of either algorithm)
        if kid is None:  # an issuer with one key need not name it
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _read_keys(self) -> dict[str, Any]:
        try:
            async with self._http.AsyncClient(timeout=ANSWER_SECONDS) as client:
                metadata = _object(await client.get(self.issuer.rstrip("/") + _METADATA))
                if metadata.get("issuer") != self.issuer:
                    raise ValueError(f"it calls itself {metadata.get('issuer')!r}")
                found = _object(await client.get(str(metadata["jwks_uri"])))
            keys = self._jwt.PyJWKSet.from_dict(found).keys
        except (self._http.HTTPError, KeyError, ValueError, self._jwt.PyJWTError) as error:
            raise StoreUnavailable(f"{self.issuer}: {type(error).__name__}: {error}") from None
        return {str(key.key_id): key for key in keys}


def _object(answer: "Response") -> dict[str, Any]:
    answer.raise_for_status()
    data = answer.json()
    if not isinstance(data, dict):
        raise ValueError("its answer is no object")
    return data


def _name_of(claims: Mapping[str, Any]) -> str:
    """Return what people call the bearer; an address that is not proved is none."""
    if claims.get("email") and claims.get("email_verified") is not False:
        return str(claims["email"])[:128]
    return str(claims.get("preferred_username") or claims["sub"])[:128]
