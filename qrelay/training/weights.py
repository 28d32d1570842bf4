"""A model's weights: loaded, kept, merged with the base's, and low-rank adapters put on and folded in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qrelay.errors import ConfigError
from qrelay.models.safe import SAFETENSORS_ALONE
from qrelay.training.experiment import Experiment, Lora


def loading(experiment: Experiment) -> dict[str, Any]:
    """What a model of the library is loaded with: from this machine, with the experiment's attention."""
    attention = {} if experiment.attention == "auto" else {"attn_implementation": experiment.attention}
    share = experiment.attention_dropout
    config = {} if share is None else dict.fromkeys(("attention_probs_dropout_prob", "attention_dropout"), share)
    return {"local_files_only": True, "model_kwargs": SAFETENSORS_ALONE | attention, "config_kwargs": config}


def weights(model: Any) -> dict[str, Any]:
    """A copy of every tensor by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def merge_with_base(model: Any, base: dict[str, Any], share: float) -> None:
    """share * trained + (1 - share) * base, weight by weight (Wortsman et al. 2022,
    https://arxiv.org/abs/2109.01903). Weights that the base has not, a new head's, stay as trained."""
    trained = model.state_dict()
    model.load_state_dict(
        {
            name: tensor * share + base[name].to(tensor.device) * (1 - share)
            if name in base and tensor.is_floating_point()
            else tensor
            for name, tensor in trained.items()
        }
    )


def base_weights(model: Any, folder: Path) -> dict[str, Any]:
    """The weights of a freshly loaded model that come from its folder: without a head that was drawn at random."""
    from qrelay.training.evaluation.systems import is_cross_encoder

    found = weights(model)
    core = model.transformers_model
    if "SequenceClassification" not in type(core).__name__ or is_cross_encoder(folder):
        return found
    return {name: tensor for name, tensor in found.items() if f".{core.base_model_prefix}." in name}


def add_adapters(model: Any, experiment: Experiment) -> None:
    """Freezes the model and puts the experiment's adapters on, where it asks for them; a cross-encoder's head is
    trained whole.

    Raises:
        ConfigError: peft is not installed, or knows no layers of this model.
    """
    if experiment.lora is None:
        return
    try:
        model.add_adapter(_config(experiment.lora, experiment.kind))
    except ImportError as error:
        raise ConfigError("lora needs peft: pip install peft") from error
    except ValueError as error:
        raise ConfigError(f"lora cannot be put on {experiment.model}: {error}; name lora.target_modules") from error


def _config(lora: Lora, kind: str) -> Any:
    from peft import LoraConfig, TaskType

    head = TaskType.SEQ_CLS if kind == "cross_encoder" else TaskType.FEATURE_EXTRACTION
    return LoraConfig(
        task_type=head,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules) or None,
        modules_to_save=["classifier"] if kind == "cross_encoder" else None,
    )


def fold_adapters(model: Any) -> None:
    """Adds the adapters to the weights and takes them off: what is left is a plain model."""
    core = model.transformers_model
    if not getattr(core, "_hf_peft_config_loaded", False):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    for name, module in list(core.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            _replace(core, name, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            _replace(core, name, module.modules_to_save[module.active_adapters[0]])
    core._hf_peft_config_loaded = False
    del core.peft_config
    core.requires_grad_(True)


def _replace(core: Any, name: str, module: Any) -> None:
    parent, _, child = name.rpartition(".")
    setattr(core.get_submodule(parent), child, module)
