"""What a trusted key may sign: policies, or evaluations of them. One role never stands for the other."""

from typing import Final, Literal, get_args

Role = Literal["publisher", "evaluator"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
PUBLISHER, EVALUATOR = ROLES
