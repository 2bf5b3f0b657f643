"""Checks of size, text and images, which the pipeline's own calls show before anything is computed."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from torch import Tensor

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.diffusers.adapters import check_adapter_scale
from budc.runtimes.diffusers.conditioning_images import check_images
from budc.runtimes.diffusers.negative_prompt import check_negative_prompt
from budc.runtimes.diffusers.output_size import Size, prepared_size, trunk_tokens
from budc.runtimes.sampling.families import Family
from budc.schema.errors import CalibrationMismatch
from budc.schema.policy import PolicyDocument


class OutputChecks:
    """Compares the output that a run will make with the one that the policy was calibrated for.

    Raises:
        CalibrationMismatch: by each method, where they differ and uncalibrated runs are not allowed.
    """

    def __init__(
        self,
        pipe: Any,
        transformer: Any,
        document: PolicyDocument,
        settings: SettingsCheck,
        family: Family,
    ) -> None:
        self._pipe = pipe
        self._transformer = transformer
        self._settings = settings
        self._family = family
        self.use(document)

    def use(self, document: PolicyDocument) -> None:
        """Compare with another policy from now on."""
        self._document, self._shape = document, document.pipeline().shape
        self._size = Size(self._shape.frames, self._shape.height, self._shape.width)
        self._given: Size | None = None
        self._chosen: PolicyDocument | None = None

    def pipeline_call(self, method: Callable[..., Any], given: Mapping[str, Any]) -> None:
        """Check what a call of the pipeline is given; the methods that it calls may not be told all of it."""
        check_negative_prompt(self._document, method, given, self._settings)
        check_adapter_scale(self._document, given, self._settings)
        if given:
            check_images(self._document, self._pipe, given, self._settings)
        if given.get("height") is not None and given.get("width") is not None:
            self._given = Size(given.get("num_frames") or self._shape.frames, given["height"], given["width"])

    def begin_run(self) -> PolicyDocument:
        """Return the policy for the size of the run, as far as the pipeline has shown it: the first shape's if not."""
        size = self._given
        self._chosen = self._document if size is None else self._document.of_size(*size)
        return self._chosen

    def end_run(self) -> None:
        """Forget the size of the run."""
        self._given = self._chosen = None

    def prepare_latents(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the pipeline's `prepare_latents`; check the images and the size that it is given and makes."""
        given = signature(original).bind(*args, **kwargs).arguments
        check_images(self._document, self._pipe, given, self._settings)
        if "height" in given and "width" in given:
            self._check_size(Size(given.get("num_frames", 1), given["height"], given["width"]))
        prepared = original(*args, **kwargs)
        if (size := prepared_size(self._family, self._pipe, prepared)) is not None:
            self._check_size(size)
        return prepared

    def encode_prompt(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the pipeline's `encode_prompt`; check the number of text tokens that it returns.

        Z-Image returns lists, of a text (tokens, width) for each prompt.
        """
        given = signature(original).bind(*args, **kwargs).arguments
        check_negative_prompt(self._document, original, given, self._settings)
        encoded = original(*args, **kwargs)
        embeds = encoded[0] if isinstance(encoded, tuple) else encoded
        remedy = f"pass max_sequence_length={self._shape.text_tokens}"
        tokens = (
            [embeds.shape[1]] if isinstance(embeds, Tensor) else [len(text) for text in embeds if len(text)]
        )
        self._settings.require_text_tokens(self._document, max(tokens, default=0), remedy)
        return encoded

    def check_tokens(self, tokens: int) -> None:
        """Check the number of tokens that a transformer's blocks had."""
        wanted = trunk_tokens(self._family, self._pipe, self._transformer, self._size)
        if wanted is not None:
            remedy = "use the calibrated height, width and number of frames"
            self._settings.require("shape", f"{wanted} tokens", f"{tokens} tokens", remedy)

    def _check_size(self, size: Size) -> None:
        expected = self._document.pipeline().shape_of(size.frames, size.height, size.width)
        for field in ("frames", "height", "width"):
            self._settings.require(field, getattr(expected, field), getattr(size, field))
        self._size = self._given = size
        if self._chosen is not None and self._document.of_size(*size) != self._chosen:
            raise CalibrationMismatch(
                f"size: the policy has sigmas or predictors of its own for {size.width} x {size.height}, and the run "
                "was begun before that size was known",
                remedy="pass height, width and num_frames to the pipeline; in a loop of your own prepare the latents "
                "before set_timesteps",
            )
