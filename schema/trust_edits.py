"""Changing a trust file: adding and removing keys, denying policies, raising minimums.

Values are written anew, never copied as text, and the new text is read and its keys are loaded before it replaces
the old one; so a change that fails leaves the file as it was. A link is followed: the file that it leads to is
changed. Comments of a file that was written by hand are lost.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from budc.schema.bounds import in_words, parse_bounds
from budc.schema.errors import OutputError, TrustError, UsageError
from budc.schema.fields import Digest, Name
from budc.schema.files import lock, write_atomic
from budc.schema.keys import PublicKey
from budc.schema.roles import EVALUATOR, PUBLISHER, ROLES, Role
from budc.schema.trust import Trust
from budc.schema.trust_file import (
    KeyEntry,
    TrustFile,
    key_of,
    long_form,
    parse_trust_file,
    read_trust_file,
)

_PEM = re.compile(r"[A-Za-z0-9+/= \n-]*")


@contextmanager
def changing(path: Path) -> Iterator["Draft"]:
    """Change the trust file at `path` in the with-block, one process at a time. On an error nothing is written.

    Raises:
        TrustError: the existing file cannot be used, or the changed one could not.
        OutputError: it cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(target.with_suffix(".lock"), flags, 0o600)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {error}") from error
    try:
        try:
            lock(descriptor)
        except OSError as error:
            raise OutputError(
                f"another process is changing {path}", remedy="try again once it has ended"
            ) from error
        draft = Draft(path, target)
        yield draft
        draft.write()
    finally:
        os.close(descriptor)


class Draft:
    """A trust file that is being changed.

    Args:
        path: as the user named it; key files in it are relative to its folder.
        target: `path` with links resolved.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self._target = target
        self.content = read_trust_file(path) if os.path.lexists(target) else TrustFile()

    def add(
        self, key: PublicKey, name: str, families: Sequence[str] = (), roles: Sequence[Role] = ()
    ) -> None:
        """Trust a key under a name; its PEM text is written to the file.

        Args:
            key: the key.
            name: what it is called.
            families: of models that it may sign for; all if there is none.
            roles: what it may sign; policies if there is none.

        Raises:
            UsageError: the name or a family is malformed, or the name or the key is there already.
        """
        for word in (name, *families):
            _check(word, Name, f"{word!r} is not a name")
        for old in map(long_form, self.content.keys):
            if old.name == name:
                raise UsageError(f"a key named {name} is trusted already", remedy=f"budc trust remove {name}")
            if key_of(old, self.path) == key:
                raise UsageError(
                    f"{key.fingerprint} is trusted already, as {old.name or old.file}",
                    remedy=f"to change its roles or families: budc trust remove {old.name or old.file}, "
                    "then add it again",
                )
        chosen = [role for role in ROLES if role in roles]
        entry = KeyEntry(
            name=name, pem=key.pem.decode(), families=list(families) or None, roles=chosen or None
        )
        self.content = replace(self.content, keys=[*self.content.keys, entry])

    def remove(self, name: str) -> None:
        """Remove a trusted key, given by its name, its file or its fingerprint. Raises UsageError."""
        remaining = [entry for entry in self.content.keys if not self._is(long_form(entry), name)]
        if len(remaining) == len(self.content.keys):
            raise UsageError(f"no key {name} is trusted", remedy="budc trust list")
        publishers = len(_with_role(remaining, PUBLISHER))
        if remaining and publishers < self.content.threshold and self.content.threshold > 1:
            raise UsageError(
                f"{self.content.threshold} signatures are required, and {publishers} keys would be left",
                remedy="lower the threshold first: budc trust require --threshold N",
            )
        required = self.content.require_evaluation
        if required is not None and not _with_role(remaining, EVALUATOR):
            bounds = in_words(parse_bounds(required, "require-evaluation"))
            raise UsageError(
                f"an evaluation is required ({bounds}), and no evaluator would be left",
                remedy="take the requirement back first: budc trust require --no-evaluation",
            )
        self.content = replace(self.content, keys=remaining)

    def deny(self, policy_id: str) -> None:
        """Refuse a policy by its id from now on. Raises UsageError."""
        _check(policy_id, Digest, f"{policy_id!r} is not a policy id")
        self.content = replace(self.content, denied=sorted({*self.content.denied, policy_id}))

    def allow(self, policy_id: str) -> None:
        """Take back the denial of a policy. Raises UsageError."""
        if policy_id not in self.content.denied:
            raise UsageError(f"{policy_id} is not denied", remedy="budc trust list")
        self.content = replace(self.content, denied=[i for i in self.content.denied if i != policy_id])

    def require(self, *, threshold: int | None = None, revisions: Sequence[tuple[str, int]] = ()) -> None:
        """Set the threshold, and the minimum revision of policies by name. Raises UsageError."""
        if threshold is not None:
            publishers = len(_with_role(self.content.keys, PUBLISHER))
            if not 1 <= threshold <= publishers:
                raise UsageError(f"threshold {threshold} of {publishers} keys")
            self.content = replace(self.content, threshold=threshold)
        for name, _ in revisions:
            _check(name, Name, f"{name!r} is not a policy's name")
        merged = self.content.minimum_revision | dict(revisions)
        self.content = replace(self.content, minimum_revision=merged)

    def require_evaluation(self, bounds: str | None) -> None:
        """Require an evaluation within these bounds of every policy, or none. Raises UsageError."""
        if bounds is not None:
            parse_bounds(bounds, "--evaluation")
            if not _with_role(self.content.keys, EVALUATOR):
                raise UsageError(
                    "--evaluation: no key is trusted as an evaluator's, so every policy would be refused",
                    remedy="budc trust add PUB --role evaluator",
                )
        self.content = replace(self.content, require_evaluation=bounds)

    def drop_minimum(self, name: str) -> None:
        """Take back the minimum revision of the policy `name`. Raises UsageError."""
        rest = {other: minimum for other, minimum in self.content.minimum_revision.items() if other != name}
        if len(rest) == len(self.content.minimum_revision):
            raise UsageError(f"there is no minimum revision for {name}", remedy="budc trust list")
        self.content = replace(self.content, minimum_revision=rest)

    def write(self) -> None:
        """Replace the file, after its new text was read and its keys were loaded. Raises TrustError, OutputError."""
        data = encode(self.content).encode()
        content = parse_trust_file(data, self.path)
        if content.keys:
            Trust.of(content, self.path)
        write_atomic(self._target, data, mode=0o600)

    def _is(self, entry: KeyEntry, name: str) -> bool:
        if name in (entry.name, entry.file):
            return True
        # A key that can no longer be read can still be removed, by its name.
        try:
            return key_of(entry, self.path).fingerprint == name
        except TrustError:
            return False


def encode(content: TrustFile) -> str:
    """Return a trust file as TOML."""
    lines = [f"threshold = {content.threshold}", f"denied = {_list(content.denied)}"]
    if content.require_evaluation is not None:
        lines += [f"require-evaluation = {_text(content.require_evaluation)}"]
    if content.minimum_revision:
        lines += ["", "[minimum-revision]"]
        lines += [
            f"{_text(name)} = {revision}" for name, revision in sorted(content.minimum_revision.items())
        ]
    for entry in map(long_form, content.keys):
        lines += ["", "[[keys]]"]
        lines += [f"name = {_text(entry.name)}"] if entry.name is not None else []
        lines += [f"file = {_text(entry.file)}"] if entry.file is not None else []
        lines += [f"pem = {_pem(entry.pem)}"] if entry.pem is not None else []
        lines += [f"families = {_list(entry.families)}"] if entry.families is not None else []
        lines += [f"roles = {_list(entry.roles)}"] if entry.roles is not None else []
    return "\n".join(lines) + "\n"


def _with_role(entries: Sequence[KeyEntry | str], role: Role) -> list[KeyEntry]:
    return [entry for entry in map(long_form, entries) if entry.has(role)]


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(_text(value) for value in values)}]"


def _pem(value: str) -> str:
    """Return a PEM on lines of its own; text that is none is quoted, as quotes in it could end the string."""
    return f'"""\n{value}"""' if _PEM.fullmatch(value) else _text(value)


def _text(value: str) -> str:
    # A JSON string is a TOML basic string, once DEL is escaped too. Other characters stay: TOML has no surrogates.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _check(value: str, kind: object, message: str) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise UsageError(message, remedy="use letters, digits, dot, dash, underscore") from error
