"""What a reader of a result is warned of."""

from harness.benchmark.hparams import LoadedHparams
from harness.caveats import caveats
from harness.sandbox import Level

UNJUDGED = "calibrated before tokens' losses were compared: they are not judged"


def test_a_benchmark_that_was_calibrated_before_a_check_says_so(loaded: LoadedHparams) -> None:
    hparams = loaded.hparams
    assert caveats(hparams, Level.BUBBLEWRAP) == []
    older = hparams.verify.tolerances.model_copy(update={"token_loss_shift": None})
    verify = hparams.verify.model_copy(update={"tolerances": older})
    assert caveats(hparams.model_copy(update={"verify": verify}), Level.BUBBLEWRAP) == [UNJUDGED]
    none = verify.model_copy(update={"token_loss_share": 0.0})
    assert caveats(hparams.model_copy(update={"verify": none}), Level.BUBBLEWRAP) == []
