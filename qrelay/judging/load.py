"""The core behind the judge's queue and gRPC service: the arrangement of judges that the settings ask for.

Judge      one model asked one way (judge.py)
Panel      several judges, all of which label every pair (panel.py)
Ensemble      a panel, and one calibrated label a pair made of theirs (ensemble.py)
Cascade    a cheap core answers where it is sure, an expensive one the rest (cascade.py)
EarlyStop  any of these, leaving out what cannot change an export (early_stop.py)
Budgeted   any of these, until the tokens or the money are used up (budget.py)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qrelay.errors import ConfigError
from qrelay.judging.budget import within_budget
from qrelay.judging.cache import JudgmentCache, open_cache
from qrelay.judging.core import JudgeCore
from qrelay.judging.engines import Batches, check_backend, make_backend, refuse_lacking
from qrelay.judging.judge import Judge
from qrelay.judging.panel import Panel
from qrelay.judging.prefilter import Prefilter
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.strategies import make_strategy
from qrelay.judging.strategies.base import Strategy
from qrelay.judging.strategies.chat import Shot
from qrelay.llm.base import Backend
from qrelay.llm.ways import AUTO, Notebook


def load_core(settings: JudgeSettings, *, notebook: Notebook | None = None, batches: Batches = "read") -> JudgeCore:
    """The core that the settings ask for, ready to work. May take a while; run it off the event loop. notebook: see
    `load_judge`. batches: see `engines.Batches`.

    Raises:
        ModelError: a model is absent or altered; the text says what to pull.
        ConfigError: a strategy that its backend cannot serve, a key that is not set, an unusable cache or map.
    """
    panel = load_panel(settings, notebook=notebook, batches=batches)
    try:
        return _arranged(settings, panel)
    except BaseException:
        panel.close()
        raise


def check_core(settings: JudgeSettings) -> None:
    """What would keep `load_core` from beginning. Raises as it, for absent models and keys."""
    for own in settings.members().values():
        strategy_of(own)
        check_backend(own)


def load_serving(settings: JudgeSettings) -> JudgeCore:
    """As `load_core`, for a process that lives on: requests for batches are sent."""
    return load_core(settings, batches="drive")


def load_panel(settings: JudgeSettings, *, notebook: Notebook | None = None, batches: Batches = "read") -> Panel:
    """The configured judges, side by side, on one cache. Judges of the same engine and model share it. Raises as
    `load_core`, and ConfigError where two of them are the same."""
    cache = open_cache(settings.cache_path)
    judges: dict[str, Judge] = {}
    engines: dict[str, Backend] = {}
    try:
        for name, own in settings.members().items():
            judges[name] = load_judge(own, cache, engines, notebook=notebook, batches=batches)
        _refuse_twins(judges)
    except BaseException:
        for engine in engines.values():
            engine.close()
        cache.close()
        raise
    return Panel(judges, cache)


def _refuse_twins(judges: Mapping[str, Judge]) -> None:
    """Raises ConfigError where two judges are one: their labels would have the same keys."""
    names: dict[str, str] = {}
    for name, judge in judges.items():
        first = names.setdefault(judge.hashes[0], name)
        if first != name:
            raise ConfigError(
                f"judge.judges: {first} and {name} are the same judge (model, prompt, scale and decoding): remove one"
            )


def notebook_of(settings: JudgeSettings) -> Notebook | None:
    """Where the judges of the settings have written down how their endpoints are asked, for judging without a cache
    as they do; None: that is not left to an endpoint. Raises ConfigError as `open_cache`."""
    asked = [each.endpoint for each in settings.members().values() if each.backend == "openai"]
    left_open = any(AUTO in (each.label_logprobs, each.prompt_logprobs) for each in asked)
    return open_cache(settings.cache_path) if left_open else None


def load_judge(
    settings: JudgeSettings,
    cache: JudgmentCache,
    engines: dict[str, Backend] | None = None,
    *,
    notebook: Notebook | None = None,
    batches: Batches = "read",
) -> Judge:
    """One judge on a cache that it shares. engines: those that are loaded, to which its own is added. notebook: where
    it is written down how an endpoint is asked; None: the cache. Raises as `load_core`."""
    shots: tuple[Shot, ...] = ()
    if settings.shots:
        from qrelay.judging.shots import read_shots

        shots = read_shots(settings)
    strategy = strategy_of(settings, shots)
    engines = {} if engines is None else engines
    engine = f"{settings.backend} {settings.model} {settings.endpoint}"
    if engine in engines:
        refuse_lacking(engines[engine], settings, strategy.spec.needs)
    else:
        engines[engine] = make_backend(
            settings, needs=strategy.spec.needs, notebook=notebook or cache, batches=batches
        )
    limits = settings.prefilter
    prefilter = Prefilter(min_chars=limits.min_chars, max_chars=limits.max_chars)
    return Judge(engines[engine], strategy, cache, prefilter=prefilter)


def strategy_of(settings: JudgeSettings, shots: Sequence[Shot] = ()) -> Strategy:
    """How the judge asks, by its settings. Raises ConfigError: a rubric that cannot be used."""
    mass = settings.min_grade_mass
    return make_strategy(settings.strategy, settings.scale, min_mass=mass, shots=shots, rubric=settings.rubric)


def _arranged(settings: JudgeSettings, panel: Panel) -> JudgeCore:
    """The panel in the arrangements that are set; only those are imported, as maps need numpy."""
    core: JudgeCore = panel
    if settings.cascade.order:
        from qrelay.judging.cascade import load_cascade

        core = load_cascade(settings, panel)
    elif settings.calibration:
        from qrelay.judging.calibration import load_map
        from qrelay.judging.ensemble import Ensemble

        core = Ensemble(panel, load_map(settings.calibration))
    if settings.early_stop.enabled:
        from qrelay.judging.early_stop import stopping_early

        core = stopping_early(settings, panel, core)
    return within_budget(settings, core)
