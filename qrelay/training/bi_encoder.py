"""Bi-encoders: rows of documents, our retrieval losses, sentence-transformers' SentenceTransformerTrainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qrelay.formats.beir import Collection
from qrelay.training.data import Example
from qrelay.training.evaluator import Ranker
from qrelay.training.experiment import Experiment
from qrelay.training.losses.combined import CachedRetrievalLoss, RetrievalLoss
from qrelay.training.losses.terms import LossRules
from qrelay.training.rows import as_dataset, rows_of
from qrelay.training.tokens import TokenCache
from qrelay.training.weights import loading


class BiEncoder:
    """How `qrelay.training.stages` trains a bi-encoder; see `qrelay.training.stages.Kind`."""

    def load(self, experiment: Experiment, path: Path) -> Any:
        """A SentenceTransformer from a folder, with the experiment's length and attention."""
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(path), **loading(experiment))
        model.max_seq_length = experiment.max_length
        return model

    def dataset(self, examples: Sequence[Example], experiment: Experiment) -> Any:
        """Columns query, document_0 …, label."""
        rows = rows_of(
            examples,
            documents=experiment.documents,
            max_positives=experiment.max_positives,
            every_label=experiment.every_label,
        )
        return as_dataset(rows, seed=experiment.seed)

    def begin(self, experiment: Experiment, model: Any, dataset: Any) -> None:
        """It has no head."""

    def loss(self, experiment: Experiment, model: Any) -> Any:
        """The weighted sum that the experiment names, with GradCache where it asks for it."""
        rules = LossRules(experiment.temperature, experiment.teacher_temperature, experiment.margin)
        if experiment.mini_batch_size:
            return CachedRetrievalLoss(model, experiment.terms, rules, mini_batch_size=experiment.mini_batch_size)
        return RetrievalLoss(model, experiment.terms, rules)

    def arguments(self, **values: Any) -> Any:
        """The trainer's arguments."""
        from sentence_transformers import SentenceTransformerTrainingArguments

        return SentenceTransformerTrainingArguments(**values)

    def trainer(self, model: Any, **values: Any) -> Any:
        """The trainer; it puts the model's own prompts before texts, and tokenises each text once a stage."""
        from sentence_transformers import SentenceTransformerTrainer
        from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

        columns = [name for name in values["train_dataset"].column_names if name != "label"]
        prompts = {name: model.prompts.get("query" if name == "query" else "document", "") for name in columns}
        collator = SentenceTransformerDataCollator(preprocess_fn=TokenCache(model), prompts=prompts)
        return SentenceTransformerTrainer(model=model, data_collator=collator, **values)

    def ranker(self, dev: Collection) -> Ranker:
        """Exact search over the dev corpus."""
        from qrelay.models.embedder import SentenceTransformerEmbedder
        from qrelay.training.evaluation.systems import bi_encoder_run

        return lambda model: bi_encoder_run(dev, SentenceTransformerEmbedder(model))
