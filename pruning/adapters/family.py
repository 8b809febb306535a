"""What an adapter has to say about a family of models; hooks, masks and caches are shared.

A family is one small class. Everything has a default that fits the layout most models share:

    model.model                      core: merges pictures into the prompt
    model.model.language_model       decoder, whose layers are `decoder.layers`
    config.image_token_id            the token that stands for a visual one
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pruning.adapters.layout import Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from pruning.adapters.tower import Tower


IMAGES = ("get_image_features", "image_token_id")
VIDEOS = ("get_video_features", "video_token_id")


class Family:
    """Base of all families.

    Class attributes: `name`; `models`, names of the classes of `transformers`; `encoders`, per kind
    of picture the method of the core that encodes it, and the entry of the configuration that names
    its token; `prefix`, whether the prompt may see all of itself; `axes`, numbers of a position.
    """

    name: ClassVar[str] = ""
    models: ClassVar[tuple[str, ...]] = ()
    encoders: ClassVar[tuple[tuple[str, str], ...]] = (IMAGES,)
    prefix: ClassVar[bool] = False
    axes: ClassVar[int] = 1

    def core(self, model: Any) -> Any:
        """The module whose forward merges pictures into the prompt; it gets the model's inputs."""
        return model.model if hasattr(model, "lm_head") else model

    def decoder(self, core: Any) -> Any:
        """The language model inside."""
        return core.language_model

    def pictures(self, output: Any) -> list[Tensor]:
        """Features of every picture, `[tokens, width]`, out of what an encoder returned."""
        features = getattr(output, "pooler_output", output)
        if isinstance(features, tuple) and not hasattr(features[0], "shape"):
            features = features[0]
        return list(features)

    def spans(
        self, core: Any, kind: int, inputs: Mapping[str, Any], pictures: list[Tensor]
    ) -> list[Span]:
        """How the tokens of each picture divide into views.

        Args:
            core: the core module.
            kind: number of the encoder.
            inputs: what it was called with, by name.
            pictures: what it returned.
        """
        return [Span(len(picture)) for picture in pictures]

    def token_ids(self, core: Any) -> list[int]:
        """Tokens that stand for visual ones, one per kind."""
        return [getattr(core.config, entry) for _, entry in self.encoders]

    def reads_deep(self, core: Any) -> int:
        """Layers behind whose outputs the model itself touches visual tokens (deepstack)."""
        return 0

    def tower(self, core: Any) -> Tower:
        """The vision tower; by default one that gives a token per patch."""
        from pruning.adapters.tower import PatchTower, block_behind, blocks_of

        config = core.config
        prefix = int(getattr(config, "vision_feature_select_strategy", "full") == "default")
        block = block_behind(config, blocks_of(core.vision_tower))
        return PatchTower(block.self_attn, core.multi_modal_projector, prefix)

    def attention(self, layer: nn.Module) -> Any:
        """The self-attention of a decoder layer."""
        return layer.self_attn

    def taps(self, attention: Any) -> tuple[Any, Any]:
        """The modules whose outputs are queries and keys before rotation."""
        if hasattr(attention, "q_norm"):
            return attention.q_norm, attention.k_norm
        return attention.q_proj, attention.k_proj

    def lacks(self, need: str) -> str | None:
        """Why a need cannot be met by this family; None when it can."""
        return None

    def ids_from(self, core: Any, embeds: Tensor) -> Tensor:
        """Token numbers where only embeddings were given: pictures are known, the rest is 0."""
        import torch

        ids = embeds.new_zeros(embeds.shape[:2], dtype=torch.int64)
        table = core.get_input_embeddings()
        for token in self.token_ids(core):
            same = embeds == table(torch.tensor(token, device=embeds.device))
            ids = ids.masked_fill(same.all(-1), token)
        return ids
