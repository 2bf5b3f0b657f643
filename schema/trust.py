"""Trust: whose signatures are believed, for which models, how many are needed, and what is refused.

A trust file (`budc.schema.trust_file`) says so, or a list of public keys. The caller says where the file is; nothing
in an artifact can choose what to trust.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from budc.schema.arguments import path_argument
from budc.schema.bounds import Bound, in_words, parse_bounds
from budc.schema.errors import Denied, KeyUnusable, RevisionTooOld, TrustError, UntrustedKey, UsageError
from budc.schema.keys import PublicKey, load_public
from budc.schema.policy import PolicyDocument
from budc.schema.roles import EVALUATOR, PUBLISHER
from budc.schema.trust_file import FORM, TrustFile, key_of, long_form, read_trust_file


@dataclass(frozen=True)
class Trust:
    """The trusted keys and the rules that come with them."""

    keys: tuple[PublicKey, ...]
    """Of publishers: they sign policies."""
    threshold: int = 1
    minimum_revisions: Mapping[str, int] = field(default_factory=dict)
    denied: frozenset[str] = frozenset()
    """Policy ids, and those of evaluations."""
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Fingerprint → model families that the key may sign for; a key that is missing here may sign for all."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Fingerprint → what the user calls the key."""
    evaluators: tuple[PublicKey, ...] = ()
    """Keys that sign evaluations. They make no policy trusted, and publishers' keys make no evaluation trusted."""
    required: tuple[Bound, ...] = ()
    """What an evaluation of each policy must show, in the calibrated setting; nothing, if there is none."""

    def __post_init__(self) -> None:
        if self.threshold < 1:
            raise TrustError(f"threshold is {self.threshold}, expected 1 or more", remedy=FORM)

    @classmethod
    def from_pem(cls, *paths: str | os.PathLike[str]) -> "Trust":
        """Return trust in the keys of these PEM files; a signature by any one suffices.

        Raises:
            UsageError: no path, or something else.
            KeyUnusable: a file is missing or holds no key that can be used.
        """
        remedy = 'pass the path of a public key, as in Trust.from_pem("publisher.pub")'
        if not paths:
            raise UsageError("paths: no key was given, so nobody would be trusted", remedy=remedy)
        return cls(tuple(load_public(path_argument(path, "paths", remedy)) for path in paths))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Trust":
        """Return the trust that the file at `path` describes.

        Raises:
            TrustError: the file cannot be read or does not have the form that this module describes.
            KeyUnusable: a key that it names cannot be used.
        """
        path = path_argument(path, "path", "pass the path of a trust file")
        return cls.of(read_trust_file(path), path)

    @classmethod
    def of(cls, content: TrustFile, path: str | os.PathLike[str]) -> "Trust":
        """Return the trust that `content`, of the trust file at `path`, describes. Raises as `load` does."""
        loaded = [(key_of(entry, path), entry) for entry in map(long_form, content.keys)]
        if not loaded:
            raise TrustError(f"trust file {path}: `keys` names no key", remedy=FORM)
        _refuse_repeated(path, "the key", (key.fingerprint for key, _ in loaded))
        _refuse_repeated(path, "a key named", (entry.name for _, entry in loaded if entry.name))
        publishers = tuple(key for key, entry in loaded if entry.has(PUBLISHER))
        # A file of evaluators alone is good beside a publisher's key; one signature is the least that is asked for.
        if content.threshold > max(1, len(publishers)):
            raise KeyUnusable(
                f"trust file {path}: {content.threshold} signatures required of {len(publishers)} keys"
            )
        trust = cls(
            keys=publishers,
            evaluators=tuple(key for key, entry in loaded if entry.has(EVALUATOR)),
            threshold=content.threshold,
            minimum_revisions=content.minimum_revision,
            denied=frozenset(content.denied),
            families={
                key.fingerprint: tuple(entry.families) for key, entry in loaded if entry.families is not None
            },
            names={key.fingerprint: entry.name for key, entry in loaded if entry.name},
        )
        if content.require_evaluation is None:
            return trust
        try:
            return trust.requiring(content.require_evaluation, f"trust file {path}: require-evaluation")
        except UsageError as error:
            raise TrustError(str(error), remedy=error.remedy) from error

    def requiring(self, bounds: str, where: str = "bounds") -> "Trust":
        """Return this trust, under which a policy also needs an evaluation within further bounds.

        Args:
            bounds: such as "psnr>=30,n>=32", see `budc.schema.bounds`.
            where: what error messages call them.

        Raises:
            UsageError: they are malformed, or no key is trusted as an evaluator's.
        """
        required = parse_bounds(bounds, where)
        if not self.evaluators:
            raise UsageError(
                f"{where}: no key is trusted as an evaluator's, so no policy could meet {in_words(required)}",
                remedy="budc trust add PUB --role evaluator",
            )
        return replace(self, required=(*self.required, *required))

    def check_denied(self, policy_id: str) -> None:
        """Refuse a policy or an evaluation whose id the trust file denies. Raises Denied."""
        if policy_id in self.denied:
            raise Denied(f"the trust file denies {policy_id}")

    def check_family(self, document: PolicyDocument, signed_by: Sequence[PublicKey]) -> tuple[PublicKey, ...]:
        """Return those verified signers that may sign for the document's model family.

        Raises:
            UntrustedKey: they are fewer than the threshold.
        """
        family = document.model.family
        allowed = tuple(key for key in signed_by if family in self.families.get(key.fingerprint, (family,)))
        if len(allowed) < self.threshold:
            refused = next(key for key in signed_by if key not in allowed) if signed_by else None
            who = self.names.get(refused.fingerprint, refused.fingerprint) if refused else "nobody"
            raise UntrustedKey(
                f"{who} is not trusted for models of the family {family}: {len(allowed)} of "
                f"{self.threshold} signatures count",
                remedy=f"if that is intended, add the key with --family {family}",
            )
        return allowed

    def check_evaluator(self, family: str, signed_by: Sequence[PublicKey]) -> tuple[PublicKey, ...]:
        """Return those verified evaluators who may speak of models of a family. Raises UntrustedKey: nobody may."""
        allowed = tuple(key for key in signed_by if family in self.families.get(key.fingerprint, (family,)))
        if not allowed:
            who = ", ".join(self.names.get(key.fingerprint, key.fingerprint) for key in signed_by)
            raise UntrustedKey(
                f"{who} is not trusted as an evaluator for models of the family {family}",
                remedy=f"if that is intended, add the key with --role evaluator --family {family}",
            )
        return allowed

    def check_revision(self, document: PolicyDocument) -> None:
        """Refuse a revision below the minimum for the document's name. Raises RevisionTooOld."""
        minimum = self.minimum_revisions.get(document.name, 1)
        if document.revision < minimum:
            raise RevisionTooOld(
                f"{document.name} is revision {document.revision}, the trust file asks for {minimum} or later"
            )


def _refuse_repeated(path: str | os.PathLike[str], what: str, names: Iterable[str]) -> None:
    """Refuse a trust file that says the same thing twice: two entries could set different limits."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise TrustError(f"trust file {path}: {what} {name} is there twice", remedy="remove one entry")
        seen.add(name)
