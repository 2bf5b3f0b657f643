"""ImageReward on a small random network in the layout of the published file, against its layers written out."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import gelu

from budc.compiler.metrics import METRICS, image_reward_network, load_metrics
from budc.schema.errors import UnsupportedModel

CPU = torch.device("cpu")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "circle"]
TEXT, VISION, HEADS, SIDE, PATCH = 16, 24, 2, 32, 8


@pytest.fixture
def small(monkeypatch):
    """The architecture, with small widths."""
    from transformers import BlipTextConfig, BlipVisionConfig

    text = BlipTextConfig(
        vocab_size=len(WORDS) + 2,
        hidden_size=TEXT,
        encoder_hidden_size=VISION,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        max_position_embeddings=40,
    )
    vision = BlipVisionConfig(
        hidden_size=VISION,
        intermediate_size=28,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        image_size=SIDE,
        patch_size=PATCH,
        layer_norm_eps=1e-6,
    )
    monkeypatch.setattr(image_reward_network, "blip_large", lambda: (text, vision))


class Attention(nn.Module):
    """BERT's attention with its residual and norm, by its names."""

    def __init__(self, source):
        super().__init__()
        self.self = nn.ModuleDict(
            {"query": nn.Linear(TEXT, TEXT), "key": nn.Linear(source, TEXT), "value": nn.Linear(source, TEXT)}
        )
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(TEXT, TEXT), "LayerNorm": nn.LayerNorm(TEXT, eps=1e-12)}
        )

    def forward(self, hidden, source):
        mixed = attend(self.self["query"](hidden), self.self["key"](source), self.self["value"](source))
        return self.output["LayerNorm"](hidden + self.output["dense"](mixed))


def attend(query, key, value):
    query, key, value = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (query, key, value))
    weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
    return (weights @ value).transpose(1, 2).flatten(2)


class TextLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.crossattention = Attention(TEXT), Attention(VISION)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(TEXT, 20)})
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(20, TEXT), "LayerNorm": nn.LayerNorm(TEXT, eps=1e-12)}
        )

    def forward(self, hidden, seen):
        hidden = self.crossattention(self.attention(hidden, hidden), seen)
        wider = gelu(self.intermediate["dense"](hidden))
        return self.output["LayerNorm"](hidden + self.output["dense"](wider))


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(len(WORDS) + 2, TEXT),
                "position_embeddings": nn.Embedding(40, TEXT),
                "LayerNorm": nn.LayerNorm(TEXT, eps=1e-12),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(TextLayer() for _ in range(2))})

    def forward(self, ids, seen):
        hidden = (
            self.embeddings["word_embeddings"](ids)
            + self.embeddings["position_embeddings"].weight[: ids.shape[1]]
        )
        hidden = self.embeddings["LayerNorm"](hidden)
        for layer in self.encoder["layer"]:
            hidden = layer(hidden, seen)
        return hidden


class VisionBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(VISION, eps=1e-6), nn.LayerNorm(VISION, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(VISION, 3 * VISION), "proj": nn.Linear(VISION, VISION)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(VISION, 28), "fc2": nn.Linear(28, VISION)})

    def forward(self, hidden):
        hidden = hidden + self.attn["proj"](attend(*self.attn["qkv"](self.norm1(hidden)).chunk(3, -1)))
        return hidden + self.mlp["fc2"](gelu(self.mlp["fc1"](self.norm2(hidden))))


class Viewer(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, VISION))
        self.pos_embed = nn.Parameter(torch.zeros(1, (SIDE // PATCH) ** 2 + 1, VISION))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, VISION, PATCH, PATCH)})
        self.blocks = nn.ModuleList(VisionBlock() for _ in range(2))
        self.norm = nn.LayerNorm(VISION, eps=1e-6)

    def forward(self, image):
        patches = self.patch_embed["proj"](image).flatten(2).transpose(1, 2)
        hidden = torch.cat([self.cls_token, patches], 1) + self.pos_embed
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden)


class Published(nn.Module):
    def __init__(self):
        super().__init__()
        self.blip = nn.ModuleDict({"visual_encoder": Viewer(), "text_encoder": Reader()})
        layers = [nn.Linear(TEXT, 1024), nn.Dropout(), nn.Linear(1024, 128), nn.Dropout(), nn.Linear(128, 64)]
        layers += [nn.Dropout(), nn.Linear(64, 16), nn.Linear(16, 1)]
        self.mlp = nn.ModuleDict({"layers": nn.Sequential(*layers)})

    def reward(self, image, ids):
        first = self.blip["text_encoder"](ids, self.blip["visual_encoder"](image))[:, 0]
        return (float(self.mlp["layers"](first)) - 0.16717362830052426) / 1.0333394966054072


def save(folder, network):
    from transformers import BertTokenizer

    (folder / "image-reward").mkdir()
    BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(
        folder / "image-reward"
    )
    save_file(network.state_dict(), folder / "image-reward" / "ImageReward.safetensors")


@torch.no_grad()
def test_the_reward_is_that_of_the_published_layers(small, tmp_path):
    torch.manual_seed(0)
    network = Published().eval()
    for value in network.parameters():
        value.add_(torch.randn_like(value) * 0.1)
    save(tmp_path, network)
    loaded, missing = load_metrics([METRICS["image-reward"]], tmp_path, CPU)
    assert missing == []
    image = torch.rand(3, 1, SIDE, SIDE)
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073))[:, None, None]
    deviation = torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None]
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    expected = network.reward((image.transpose(0, 1) - mean) / deviation, ids)
    assert loaded["image-reward"].measure(image, image, "a red circle") == pytest.approx(expected, rel=1e-4)
    # The 36th word and those after it are not read.
    long = [loaded["image-reward"].measure(image, image, "red " * words) for words in (33, 60)]
    assert long[0] == long[1]


def test_the_published_network_has_the_parameters_of_blip_large():
    from transformers import BlipTextModel, BlipVisionModel

    text, vision = image_reward_network.blip_large()
    with torch.device("meta"):
        networks = BlipVisionModel(vision), BlipTextModel(text, add_pooling_layer=False)
    # ViT-L/16 at 224 pixels without its classifier, and a BERT of BLIP's 30 524 tokens with cross-attention.
    assert [sum(value.numel() for value in network.parameters()) for network in networks] == [
        303_301_632,
        141_977_088,
    ]


def test_a_file_of_another_network_is_refused(small, tmp_path):
    network = Published()
    del network.mlp
    save(tmp_path, network)
    with pytest.raises(
        UnsupportedModel,
        match=r"mlp\.layers\.0\.weight of shape \(1024, 16\) is expected, and it is not there",
    ):
        METRICS["image-reward"].load(tmp_path / "image-reward", CPU)
