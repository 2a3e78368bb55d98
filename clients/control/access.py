# Principals, roles and tokens.
from __future__ import annotations

from clients.control.decode import decode
from clients.control.transport import Connection, segment
from clients.control.types import IssuedToken, NewPrincipal, NewToken, Page, Principal, Token


class AccessRoom:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def whoami(self) -> Principal:
        return decode(Principal, self._connection.get("/v1/whoami"))

    def create(self, new: NewPrincipal) -> Principal:
        return decode(Principal, self._connection.post("/v1/principals", new))

    def principals(self) -> Page[Principal]:
        return self._connection.page(Principal, "/v1/principals")

    def principal(self, name: str) -> Principal:
        return decode(Principal, self._connection.get(f"/v1/principals/{segment(name)}"))

    def disable(self, name: str) -> Principal:
        return decode(Principal, self._connection.put(f"/v1/principals/{segment(name)}/disabled"))

    def enable(self, name: str) -> Principal:
        return decode(Principal, self._connection.delete(f"/v1/principals/{segment(name)}/disabled"))

    def grant(self, name: str, role: str) -> Principal:
        return decode(Principal, self._connection.put(f"/v1/principals/{segment(name)}/roles/{segment(role)}"))

    def revoke(self, name: str, role: str) -> Principal:
        return decode(Principal, self._connection.delete(f"/v1/principals/{segment(name)}/roles/{segment(role)}"))

    def create_token(self, new: NewToken) -> IssuedToken:
        """The secret is in this answer and in no later one."""
        return decode(IssuedToken, self._connection.post("/v1/tokens", new))

    def tokens(self, principal: str | None = None) -> Page[Token]:
        return self._connection.page(Token, "/v1/tokens", principal=principal)

    def revoke_token(self, number: int) -> Token:
        return decode(Token, self._connection.delete(f"/v1/tokens/{number}"))
