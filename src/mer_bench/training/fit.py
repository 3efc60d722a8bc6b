"""``mer-bench fit``: LightningCLI over any method and any corpus, with every flag of the Trainer."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from mer_bench.batch import Width
from mer_bench.datasets.base import EmotionDataModule
from mer_bench.errors import Misuse
from mer_bench.fusion.base import FusionModule
from mer_bench.training.build import check_pixels


class MerBenchCLI(LightningCLI):
    """Takes the method's widths and its number of classes from the corpus."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the method's arguments that the data determine."""
        parser.link_arguments("data", "model.init_args.dims", _dims, apply_on="instantiate")
        parser.link_arguments("data", "model.init_args.num_classes", _num_classes, apply_on="instantiate")
        parser.set_defaults({"trainer.use_distributed_sampler": False, "trainer.num_sanity_val_steps": 0})

    def before_fit(self) -> None:
        """Refuse a method that would read pixels as features."""
        check_pixels(self.model, self.datamodule)


def main(arguments: Sequence[str]) -> None:
    """Run LightningCLI's fit with ``arguments``, e.g. ``--model CFNSR --data RAVDESS --trainer.max_epochs 5``."""
    import mer_bench.datasets
    import mer_bench.fusion  # noqa: F401  (subclasses are found by name once they are imported)

    try:
        MerBenchCLI(
            FusionModule,
            EmotionDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"overwrite": True},
        )
    except ValueError as error:  # jsonargparse wraps what a constructor raises
        if isinstance(error.__cause__, Misuse):
            raise error.__cause__ from None
        raise


def _dims(data: EmotionDataModule) -> dict[str, Width]:
    return data.dims


def _num_classes(data: EmotionDataModule) -> int:
    return data.num_classes
