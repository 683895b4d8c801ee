"""How a train file uses the ranks: the axes of its parallelism, and what follows from them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.errors import Code, SubmissionError
from harness.protocol.text import counted
from harness.submission.source_facts import StrategyFact

MAX_AXIS = 65_536
WHOLE_WORLD = 0
AXES = ("dp_size", "tp_size", "ep_size", "pp_size", "cp_size")

EXAMPLE = 'def get_strategy(): return {"dp_size": 2, "tp_size": 1}'


@dataclass(frozen=True)
class Strategy:
    """How many ranks every axis of the parallelism takes; dp is outermost.

    Attributes:
        dp_size, tp_size, ep_size, pp_size, cp_size: ranks of the axis, 1 or more; WHOLE_WORLD (0)
            for the axis of a legacy string such as "ddp", until `check_world` has filled it in.
        ep_borrows_dp: expert parallelism runs over ranks of the data-parallel axis (every rank has
            its own rows), so `ep_size` divides `dp_size` and does not enter the product.
        declared: False where the file has no `get_strategy`, which means a single rank.
    """

    dp_size: int = 1
    tp_size: int = 1
    ep_size: int = 1
    pp_size: int = 1
    cp_size: int = 1
    ep_borrows_dp: bool = False
    declared: bool = True

    @property
    def world_size(self) -> int:
        """Product of the axes: the ranks that this strategy needs; 0 while an axis is open."""
        product = self.dp_size * self.tp_size * self.pp_size * self.cp_size
        return product if self.ep_borrows_dp else product * self.ep_size

    def check_world(self, world: int) -> "Strategy":
        """This strategy with every axis filled in, for `world` ranks.

        Raises SubmissionError(STRATEGY_WORLD_MISMATCH) when the product is another.
        """
        filled = replace(
            self,
            dp_size=self.dp_size or world,
            tp_size=self.tp_size or world,
            ep_size=self.ep_size or world,
        )
        if filled.world_size == world:
            return filled
        if not self.declared:
            message = (
                f"the file has no get_strategy(), which means one rank, but it is judged on "
                f"{world}: say how they are used, as in `{EXAMPLE}`, or try the file with `--world 1`"
            )
        else:
            message = (
                f"get_strategy() asks for {self._product()} = {counted(self.world_size, 'rank')}, "
                f"but it is judged on {world}: change it, or try the file with "
                f"`--world {filled.world_size}`"
            )
        raise SubmissionError(Code.STRATEGY_WORLD_MISMATCH, message)

    def check_batch(self, global_batch: int) -> None:
        """Raises SubmissionError(STRATEGY_INVALID) unless every dp rank gets equally many rows."""
        if global_batch % self.dp_size:
            raise SubmissionError(
                Code.STRATEGY_INVALID,
                f"the global batch of {global_batch} rows cannot be dealt to dp_size = "
                f"{self.dp_size} ranks: dp_size must divide it",
            )

    def dp_rank(self, rank: int) -> int:
        """Which share of the rows this rank is given: 0 <= dp_rank < dp_size, dp outermost."""
        return rank // (self.world_size // self.dp_size)

    def _product(self) -> str:
        named = [
            f"{axis} {getattr(self, axis)}"
            for axis in AXES
            if getattr(self, axis) > 1 and not (axis == "ep_size" and self.ep_borrows_dp)
        ]
        return " x ".join(named) or "dp_size 1"


# The strings of the "crusades" contract, where one axis takes all ranks.
LEGACY_STRATEGIES: Mapping[str, Strategy] = {
    "single": Strategy(),
    "ddp": Strategy(dp_size=WHOLE_WORLD),
    "fsdp": Strategy(dp_size=WHOLE_WORLD),
    "tp": Strategy(tp_size=WHOLE_WORLD),
    "ep": Strategy(ep_size=WHOLE_WORLD),
}


def read_strategy(fact: StrategyFact) -> Strategy:
    """The strategy that a train file declares.

    Raises SubmissionError: STRATEGY_NOT_LITERAL or STRATEGY_INVALID.
    """
    if fact.status == "absent":
        return Strategy(declared=False)
    if fact.status == "computed":
        raise SubmissionError(
            Code.STRATEGY_NOT_LITERAL,
            f"get_strategy must be one top-level function that returns one literal, as in "
            f"`{EXAMPLE}`: {fact.problem}. It is read, never executed",
        )
    if fact.status == "text":
        if fact.text not in LEGACY_STRATEGIES:
            known = ", ".join(f'"{name}"' for name in LEGACY_STRATEGIES)
            raise _invalid(f'returns "{fact.text}"; known strings are {known}')
        return LEGACY_STRATEGIES[fact.text]
    if fact.status == "other":
        raise _invalid(f"returns a {fact.problem}; it must return a dict or a string")
    sizes = dict.fromkeys(AXES, 1)
    borrows = False
    for key, value in fact.entries:
        if key in AXES:
            sizes[key] = _axis(key, value)
        elif key != "ep_borrows_dp":
            raise _invalid(
                f'has the unknown key "{key}"; known are {", ".join(AXES)}, ep_borrows_dp'
            )
        elif not isinstance(value, bool):
            raise _invalid(f"has ep_borrows_dp = {value}; it must be True or False")
        else:
            borrows = value
    strategy = Strategy(
        dp_size=sizes["dp_size"],
        tp_size=sizes["tp_size"],
        ep_size=sizes["ep_size"],
        pp_size=sizes["pp_size"],
        cp_size=sizes["cp_size"],
        ep_borrows_dp=borrows,
    )
    if borrows and strategy.dp_size % strategy.ep_size:
        raise _invalid(
            f"borrows ep_size = {strategy.ep_size} from dp_size = {strategy.dp_size}, "
            "which it must divide"
        )
    return strategy


def _axis(key: str, value: object) -> int:
    # bool is an int in Python, but True ranks are a mistake.
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_AXIS:
        raise _invalid(f"has {key} = {value}; it must be a whole number from 1 to {MAX_AXIS}")
    return value


def _invalid(what: str) -> SubmissionError:
    return SubmissionError(Code.STRATEGY_INVALID, f"get_strategy() {what}")
