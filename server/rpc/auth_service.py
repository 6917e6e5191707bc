"""auth.v1.AuthService."""

from uuid_utils import uuid7

from generated.auth.v1 import auth_pb2, auth_pb2_grpc
from server.auth import Caller, current_caller
from server.domain.access import Role
from server.domain.checks import AGENT_ID, Checks
from server.domain.errors import Forbidden, Unauthenticated
from server.domain.labels import check_labels
from server.domain.moment import DAY, SECOND, Millis, Moment
from server.domain.token import EVERYWHERE, Token, TokenKind
from server.domain.tokens import USES_LIMIT, CreateToken, RevokeToken
from server.engine.clock import Clock
from server.engine.minting import mint
from server.engine.writer import Writer
from server.oidc import OidcIssuer
from server.rpc.context import Context
from server.stores.interfaces import Reader

LONGEST = 3660 * DAY
LIFETIMES = {TokenKind.USER: 90 * DAY, TokenKind.ENROL: DAY, TokenKind.AGENT: 90 * DAY}
"""How long tokens count when nobody says."""

KINDS = {
    auth_pb2.TOKEN_KIND_UNSPECIFIED: TokenKind.USER,
    auth_pb2.TOKEN_KIND_USER: TokenKind.USER,
    auth_pb2.TOKEN_KIND_ENROL: TokenKind.ENROL,
    auth_pb2.TOKEN_KIND_AGENT: TokenKind.AGENT,
}
ROLES = {
    auth_pb2.ROLE_VIEWER: Role.VIEWER,
    auth_pb2.ROLE_OPERATOR: Role.OPERATOR,
    auth_pb2.ROLE_ADMIN: Role.ADMIN,
}
FIELDS_OF = {
    "role": {TokenKind.USER},
    "uses": {TokenKind.ENROL},
    "labels": {TokenKind.ENROL, TokenKind.AGENT},
    "agent_id": {TokenKind.AGENT},
}
"""Which kinds of token a field is for."""

_KIND_NUMBERS = {kind: number for number, kind in KINDS.items()}
_ROLE_NUMBERS = {role: number for number, role in ROLES.items()}


class AuthService(auth_pb2_grpc.AuthServiceServicer):
    """Who calls, and their tokens."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        clock: Clock,
        oidc: OidcIssuer | None = None,
        oidc_lifetime: Millis = DAY // 2,
    ) -> None:
        self._oidc = oidc
        self._oidc_lifetime = oidc_lifetime
        self._writer = writer
        self._reader = reader
        self._clock = clock

    async def WhoAmI(
        self, request: auth_pb2.WhoAmIRequest, context: Context
    ) -> auth_pb2.WhoAmIResponse:
        """See the proto."""
        caller = current_caller()
        return auth_pb2.WhoAmIResponse(
            name=caller.name,
            kind=caller.kind,
            namespace=caller.namespace,
            role=_role_number(caller.role),
            permissions=sorted(caller.permissions),
            server_wide=caller.server_wide,
            expires_at=caller.expires_at or 0,
        )

    async def GetLogin(
        self, request: auth_pb2.GetLoginRequest, context: Context
    ) -> auth_pb2.GetLoginResponse:
        """See the proto."""
        if self._oidc is None:
            return auth_pb2.GetLoginResponse()
        return auth_pb2.GetLoginResponse(
            issuer=self._oidc.issuer,
            client_id=self._oidc.client_id,
            client_secret=self._oidc.client_secret,
        )

    async def LogIn(
        self, request: auth_pb2.LogInRequest, context: Context
    ) -> auth_pb2.LogInResponse:
        """See the proto."""
        if self._oidc is None:
            raise Unauthenticated("People do not log in here; an administrator makes tokens.")
        person = await self._oidc.person(request.id_token, request.nonce, request.namespace)
        text, digest = mint(TokenKind.USER)
        command = CreateToken(
            person.namespace,
            str(uuid7()),
            TokenKind.USER,
            digest,
            person.name,
            self._oidc.issuer[:128],
            role=person.role,
            expires_at=self._clock.now() + self._oidc_lifetime,
        )
        token = await self._writer.submit(command, new_work=True)
        return auth_pb2.LogInResponse(token=_message(token), text=text)

    async def CreateToken(
        self, request: auth_pb2.CreateTokenRequest, context: Context
    ) -> auth_pb2.CreateTokenResponse:
        """See the proto."""
        caller = current_caller()
        _check(request)
        if request.server_wide and not caller.server_wide:
            raise Forbidden(caller.name, "anything outside its namespace")
        text, digest = mint(KINDS[request.kind])
        command = _command(request, caller, digest, self._clock.now())
        token = await self._writer.submit(command, new_work=True)
        return auth_pb2.CreateTokenResponse(token=_message(token), text=text)

    async def ListTokens(
        self, request: auth_pb2.ListTokensRequest, context: Context
    ) -> auth_pb2.ListTokensResponse:
        """See the proto."""
        caller, checks = current_caller(), Checks()
        if request.kind not in KINDS:
            checks.fail("kind", f"there is no kind {request.kind}")
        checks.done()
        where = [caller.namespace, *([EVERYWHERE] if caller.server_wide else [])]
        now = self._clock.now()
        tokens = await self._reader.tokens(where, KINDS[request.kind])
        return auth_pb2.ListTokensResponse(
            tokens=[_message(token) for token in tokens if request.all or token.counts(now)]
        )

    async def RevokeToken(
        self, request: auth_pb2.RevokeTokenRequest, context: Context
    ) -> auth_pb2.RevokeTokenResponse:
        """See the proto."""
        caller = current_caller()
        command = RevokeToken(
            caller.namespace,
            request.token_id,
            frozenset(KINDS.values()),
            everywhere=caller.server_wide,
        )
        return auth_pb2.RevokeTokenResponse(token=_message(await self._writer.submit(command)))


def _check(request: auth_pb2.CreateTokenRequest) -> None:
    """See that a new token makes sense.

    Raises:
        Invalid: it does not.
    """
    checks = Checks()
    if request.kind not in KINDS:
        checks.fail("kind", f"there is no kind {request.kind}")
        checks.done()
    kind = KINDS[request.kind]
    if kind is TokenKind.USER and request.role not in ROLES:
        checks.fail("role", "must be VIEWER, OPERATOR or ADMIN")
    if kind is TokenKind.AGENT and not AGENT_ID.fullmatch(request.agent_id):
        checks.fail("agent_id", "must be 1 to 128 letters, digits and . _ : -")
    for name, kinds in FIELDS_OF.items():
        if getattr(request, name) and kind not in kinds:
            checks.fail(name, f"is not for tokens of kind {kind.name}")
    checks.number("uses", request.uses, 0, USES_LIMIT)
    checks.extend(check_labels(request.labels, "labels"))
    checks.number("lifetime_seconds", request.lifetime_seconds, 0, LONGEST // SECOND)
    checks.done()


def _command(
    request: auth_pb2.CreateTokenRequest, caller: Caller, digest: str, now: Moment
) -> CreateToken:
    kind = KINDS[request.kind]
    lifetime = request.lifetime_seconds * SECOND or LIFETIMES[kind]
    return CreateToken(
        EVERYWHERE if request.server_wide else caller.namespace,
        str(uuid7()),
        kind,
        digest,
        request.name,
        caller.name,
        role=ROLES.get(request.role),
        subject=request.agent_id,
        labels=dict(request.labels),
        uses=(request.uses or 1) if kind is TokenKind.ENROL else None,
        expires_at=now + lifetime,
    )


def _message(token: Token) -> auth_pb2.Token:
    return auth_pb2.Token(
        token_id=token.public_id,
        kind=_KIND_NUMBERS[token.kind],
        name=token.name,
        role=_role_number(token.role),
        namespace=token.namespace,
        labels=token.labels,
        uses_left=-1 if token.uses_left is None else token.uses_left,
        created_at=token.created_at,
        created_by=token.created_by,
        expires_at=token.expires_at or 0,
        revoked_at=token.revoked_at or 0,
        used_at=token.used_at or 0,
        agent_id=token.subject,
    )


def _role_number(role: Role | None) -> "auth_pb2.Role.ValueType":
    return auth_pb2.ROLE_UNSPECIFIED if role is None else _ROLE_NUMBERS[role]
