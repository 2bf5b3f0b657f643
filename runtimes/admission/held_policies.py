"""Policies of several budgets that one runtime holds for one model, told apart by their evaluations (NFE)."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from typing import Any

from budc.runtimes.admission.trust import Source, TrustedPolicy, trusted_policy
from budc.schema.errors import UsageError, naming
from budc.schema.policy import PolicyDocument
from budc.schema.trust import Trust


def held_policies(
    artifact: Source | Sequence[Source], trust: Trust | str | PathLike[str] | None, allow_unsigned: bool
) -> dict[int, TrustedPolicy]:
    """Return NFE → policy of what the user gave, in its order, once all may run (`trusted_policy`).

    Call it in a runtime's entry point, whose caller gets the warning of an unsigned policy.

    Raises:
        UsageError: an argument of another kind, an empty list, or policies that cannot be held together.
        TrustError, ArtifactError, NotEvaluated: a policy may not run; of several files the error names the one.
    """
    sources: Sequence[Any] = artifact if isinstance(artifact, list | tuple) else [artifact]
    if not sources:
        raise UsageError("artifact: an empty list", remedy="pass one policy, or several")
    policies = []
    for source in sources:
        several = len(sources) > 1 and isinstance(source, str | PathLike)
        with naming(source) if several else nullcontext():
            policies.append(trusted_policy(source, trust, allow_unsigned, calls=2))
    return by_evaluations(policies)


def by_evaluations(policies: Sequence[TrustedPolicy]) -> dict[int, TrustedPolicy]:
    """Return NFE → policy, in the order given.

    Raises:
        UsageError: the policies are for several models or dtypes, or two have the same number of evaluations.
    """
    first = policies[0].document
    held: dict[int, TrustedPolicy] = {}
    for policy in policies:
        document = policy.document
        if not same_model(document, first):
            raise UsageError(
                f"artifact: {document.name} is for another model or another dtype than {first.name}",
                remedy="pass policies of one compile, such as a --sweep",
            )
        nfe = document.budget.nfe
        if nfe in held:
            raise UsageError(
                f"artifact: {held[nfe].document.name} and {document.name} both have {nfe} evaluations",
                remedy="pass one of them: use() tells policies apart by their evaluations",
            )
        held[nfe] = policy
    return held


def of_evaluations(held: Mapping[int, TrustedPolicy], nfe: int) -> TrustedPolicy:
    """Return the held policy of so many evaluations. Raises UsageError: there is none."""
    if nfe not in held:
        known = ", ".join(map(str, sorted(held)))
        raise UsageError(f"nfe: no policy of {nfe} evaluations is held", remedy=f"one of {known}")
    return held[nfe]


def check_replacement(document: PolicyDocument, held: PolicyDocument) -> None:
    """Refuse a policy that needs other weights to be verified than those that run. Raises UsageError."""
    if not same_model(document, held):
        raise UsageError(
            f"artifact: {document.name} is for another model or another dtype than {held.name}, which it is to replace",
            remedy="load the model anew with it",
        )


def same_model(one: PolicyDocument, other: PolicyDocument) -> bool:
    """Whether weights that were verified for one of two policies are so for the other, in the same dtype."""
    return one.model == other.model and one.pipeline().shape.dtype == other.pipeline().shape.dtype
