# Principals, their roles and tokens in SQL.
from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from itertools import groupby

from sqlalchemy import ColumnElement, ForeignKey, Index, String, delete, select, true
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.domain.access import Permission, Principal, PrincipalKind, Role, Token
from controlplane.errors import AlreadyExists, NotFound
from controlplane.storage.locks import Lock, take
from controlplane.storage.types import Base, UtcDateTime


class PrincipalRow(Base):
    __tablename__ = "principals"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    kind: Mapped[str] = mapped_column(String(20))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class PrincipalRoleRow(Base):
    __tablename__ = "principal_roles"

    principal_id: Mapped[int] = mapped_column(ForeignKey("principals.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(20), primary_key=True)


class TokenRow(Base):
    """`digest` is the SHA-256 of the token in hexadecimal; the token itself is nowhere."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    principal_id: Mapped[int] = mapped_column(ForeignKey("principals.id"))
    label: Mapped[str] = mapped_column(String(100))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (Index(None, "principal_id"),)


class AccessStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    def lock(self) -> None:
        """Before any decision that depends on who is an admin: such changes take turns."""
        take(Lock.ACCESS, self._session)

    def add(self, name: str, kind: PrincipalKind, roles: Collection[Role], at: datetime) -> Principal:
        """Raises AlreadyExists."""
        if self._row(name) is not None:
            raise AlreadyExists(f"the principal {name!r} exists", hint=f"tritonctl principal show {name}")
        row = PrincipalRow(name=name, kind=kind.value, created_at=at, disabled_at=None)
        self._session.add(row)
        self._session.flush()
        self._session.add_all(PrincipalRoleRow(principal_id=row.id, role=role.value) for role in sorted(roles))
        return _principal(row, roles)

    def get(self, name: str) -> Principal:
        """Raises NotFound."""
        return _principal(*self._known(name))

    def find(self, names: Collection[str]) -> Mapping[str, Principal]:
        """Those of `names` that exist, as they are now."""
        return {principal.name: principal for principal in self._select(PrincipalRow.name.in_(names))}

    def principals(self) -> tuple[Principal, ...]:
        return self._select(true())

    def admins(self) -> tuple[Principal, ...]:
        """Persons who may manage access now."""
        return tuple(each for each in self.principals() if each.may(Permission.ACCESS_MANAGE))

    def set_disabled(self, name: str, at: datetime | None) -> Principal:
        """`at` None enables again. Raises NotFound."""
        row, roles = self._known(name)
        row.disabled_at = at
        return _principal(row, roles)

    def grant(self, name: str, role: Role) -> Principal:
        """Harmless when it is held already. Raises NotFound."""
        row, roles = self._known(name)
        if role not in roles:
            self._session.add(PrincipalRoleRow(principal_id=row.id, role=role.value))
        return _principal(row, roles | {role})

    def revoke(self, name: str, role: Role) -> Principal:
        """Harmless when it is not held. Raises NotFound."""
        row, roles = self._known(name)
        self._session.execute(
            delete(PrincipalRoleRow).where(PrincipalRoleRow.principal_id == row.id, PrincipalRoleRow.role == role.value)
        )
        return _principal(row, roles - {role})

    def add_token(self, owner: str, label: str, digest: str, at: datetime, expires_at: datetime | None) -> Token:
        """Raises NotFound."""
        principal, _ = self._known(owner)
        row = TokenRow(principal_id=principal.id, label=label, digest=digest, created_at=at, expires_at=expires_at)
        self._session.add(row)
        self._session.flush()
        return _token(row, owner)

    def by_token(self, digest: str) -> tuple[Principal, Token] | None:
        """Whose token this is, valid or not: one query by a unique index, the same work for unknown ones."""
        rows = self._session.execute(
            select(TokenRow, PrincipalRow, PrincipalRoleRow.role)
            .join(PrincipalRow, PrincipalRow.id == TokenRow.principal_id)
            .outerjoin(PrincipalRoleRow, PrincipalRoleRow.principal_id == PrincipalRow.id)
            .where(TokenRow.digest == digest)
        ).all()
        if not rows:
            return None
        token, principal, _ = rows[0]
        return _principal(principal, _roles(role for _, _, role in rows)), _token(token, principal.name)

    def tokens(self, owner: str | None) -> tuple[Token, ...]:
        """Of one principal or of all, the newest first."""
        query = select(TokenRow, PrincipalRow.name).join(PrincipalRow).order_by(TokenRow.id.desc())
        if owner is not None:
            query = query.where(PrincipalRow.name == owner)
        return tuple(_token(row, name) for row, name in self._session.execute(query))

    def token(self, number: int) -> Token:
        """Raises NotFound."""
        return _token(*self._known_token(number))

    def revoke_token(self, number: int, at: datetime) -> Token:
        """A token that is revoked already keeps its first time. Raises NotFound."""
        row, owner = self._known_token(number)
        row.revoked_at = row.revoked_at or at
        return _token(row, owner)

    def _row(self, name: str) -> PrincipalRow | None:
        return self._session.scalar(select(PrincipalRow).where(PrincipalRow.name == name))

    def _known(self, name: str) -> tuple[PrincipalRow, frozenset[Role]]:
        row = self._row(name)
        if row is None:
            raise NotFound(f"there is no principal {name!r}", hint="tritonctl principal list")
        roles = select(PrincipalRoleRow.role).where(PrincipalRoleRow.principal_id == row.id)
        return row, frozenset(Role(role) for role in self._session.scalars(roles))

    def _known_token(self, number: int) -> tuple[TokenRow, str]:
        query = select(TokenRow, PrincipalRow.name).join(PrincipalRow).where(TokenRow.id == number)
        found = self._session.execute(query).one_or_none()
        if found is None:
            raise NotFound(f"there is no token {number}", hint="tritonctl token list")
        return found[0], found[1]

    def _select(self, condition: ColumnElement[bool]) -> tuple[Principal, ...]:
        rows = self._session.execute(
            select(PrincipalRow, PrincipalRoleRow.role)
            .outerjoin(PrincipalRoleRow, PrincipalRoleRow.principal_id == PrincipalRow.id)
            .where(condition)
            .order_by(PrincipalRow.name)
        )
        return tuple(
            _principal(row, _roles(role for _, role in group))
            for row, group in groupby(rows, key=lambda found: found[0])
        )


def _principal(row: PrincipalRow, roles: Collection[Role]) -> Principal:
    return Principal(row.id, row.name, PrincipalKind(row.kind), frozenset(roles), row.created_at, row.disabled_at)


def _roles(found: Iterable[str | None]) -> frozenset[Role]:
    """An outer join gives one None for a principal without roles."""
    return frozenset(Role(role) for role in found if role is not None)


def _token(row: TokenRow, owner: str) -> Token:
    return Token(row.id, owner, row.label, row.created_at, row.expires_at, row.revoked_at)
