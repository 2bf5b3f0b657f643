"""CLIP score and HPSv2.1 on small random models, against the layers of CLIP written out."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cosine_similarity, gelu

from budc.compiler.metrics import METRICS, hpsv2, load_metrics
from budc.policies.nano.text.clip_tokenizer import build_clip_tokenizer
from budc.schema.errors import UnsupportedModel, WeightsMissing

CPU = torch.device("cpu")
PROMPT = "a red circle"
WIDTH, DEPTH, HEADS, SIDE, PATCH, LENGTH, JOINT = 16, 2, 2, 32, 8, 24, 12


@pytest.fixture(scope="module")
def tokenizer():
    return build_clip_tokenizer()


@pytest.fixture(scope="module")
def config(tokenizer):
    from transformers import CLIPConfig

    sizes = {
        "hidden_size": WIDTH,
        "intermediate_size": 24,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "hidden_act": "gelu",
    }
    text = {
        **sizes,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return CLIPConfig(
        text_config=text,
        vision_config={**sizes, "image_size": SIDE, "patch_size": PATCH},
        projection_dim=JOINT,
    )


def frames(rows=48, columns=64, count=2):
    return torch.rand(3, count, rows, columns, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def clip_folder(config, tokenizer, tmp_path_factory):
    from transformers import CLIPModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    CLIPModel(config).save_pretrained(folder / "clip-score")
    tokenizer.save_pretrained(folder / "clip-score")
    return folder


def test_clip_score_is_the_cosine_of_the_model_s_own_embeddings(clip_folder, tokenizer):
    from transformers import CLIPModel

    loaded, missing = load_metrics([METRICS["clip-score"]], clip_folder, CPU)
    assert missing == []
    square = frames(SIDE, SIDE)
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = (square.permute(1, 2, 3, 0) - torch.tensor(mean)) / torch.tensor(deviation)
    model = CLIPModel.from_pretrained(clip_folder / "clip-score").eval()
    with torch.no_grad():
        output = model(**tokenizer(PROMPT, return_tensors="pt"), pixel_values=pixels.permute(0, 3, 1, 2))
    cosines = cosine_similarity(output.image_embeds, output.text_embeds)
    measured = loaded["clip-score"].measure(square, square, PROMPT)
    assert measured == pytest.approx(100 * float(cosines.clamp_min(0).mean()), rel=1e-4, abs=1e-4)
    assert loaded["clip-score"].measure(square, 1 - square, PROMPT) == measured
    assert 0 <= loaded["clip-score"].measure(frames(), frames(), "a red circle " * 40) <= 100


@pytest.mark.parametrize(
    ("damage", "error", "reason"),
    [
        (lambda folder: (folder / "config.json").unlink(), WeightsMissing, "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), WeightsMissing, "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), WeightsMissing, "is not there"),
        (lambda folder: drop(folder, "text_projection.weight"), UnsupportedModel, "text_projection.weight"),
        (
            lambda folder: (folder / "tokenizer.json").unlink(),
            (UnsupportedModel, WeightsMissing),
            "tokenizer|loaded",
        ),
    ],
)
def test_an_incomplete_folder_is_refused(clip_folder, tmp_path, damage, error, reason):
    for file in (clip_folder / "clip-score").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damage(tmp_path)
    with pytest.raises(error, match=reason):
        METRICS["clip-score"].load(tmp_path, CPU)


def drop(folder, name):
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")


class OpenClip(nn.Module):
    """CLIP with the parameters that open_clip has, by its names."""

    def __init__(self, tokens):
        super().__init__()
        self.token_embedding = nn.Embedding(tokens, WIDTH)
        self.positional_embedding = nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.transformer = Transformer()
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.randn(WIDTH, JOINT))
        self.logit_scale = nn.Parameter(torch.tensor(4.6))
        self.visual = Visual()

    def cosine(self, image, ids):
        hidden = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        hidden = self.transformer(hidden, torch.full((ids.shape[1],) * 2, -torch.inf).triu(1))
        text = self.ln_final(hidden)[:, -1] @ self.text_projection
        return float(cosine_similarity(self.visual(image), text))


class Visual(nn.Module):
    def __init__(self):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn((SIDE // PATCH) ** 2 + 1, WIDTH))
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = Transformer()
        self.proj = nn.Parameter(torch.randn(WIDTH, JOINT))

    def forward(self, image):
        patches = self.conv1(image).flatten(2).transpose(1, 2)
        hidden = torch.cat([self.class_embedding[None, None], patches], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(hidden), None)[:, 0]) @ self.proj


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.resblocks = nn.ModuleList(Block() for _ in range(DEPTH))

    def forward(self, hidden, mask):
        for block in self.resblocks:
            hidden = block(hidden, mask)
        return hidden


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(WIDTH, 24), "c_proj": nn.Linear(24, WIDTH)})

    def forward(self, hidden, mask):
        normed = self.ln_1(hidden)
        hidden = hidden + self.attn(normed, normed, normed, attn_mask=mask, need_weights=False)[0]
        return hidden + self.mlp["c_proj"](gelu(self.mlp["c_fc"](self.ln_2(hidden))))


def randomised(network):
    """Every parameter away from its default, norms and biases too, so that a mistaken name shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.3)
    return network.eval()


@pytest.fixture
def hps_folder(config, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(hpsv2, "vit_h_14", lambda: config)
    network = randomised(OpenClip(len(tokenizer)))
    folder = tmp_path / "hpsv2.1"
    folder.mkdir()
    save_file(network.state_dict(), folder / "HPS_v2.1_compressed.safetensors")
    tokenizer.save_pretrained(folder)
    return tmp_path, network


@torch.no_grad()
def test_hpsv2_takes_the_tensors_of_open_clip(hps_folder, tokenizer):
    folder, network = hps_folder
    loaded, missing = load_metrics([METRICS["hpsv2.1"]], folder, CPU)
    assert missing == []
    image = frames(SIDE, SIDE, 1)
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073))[:, None, None]
    deviation = torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None]
    expected = network.cosine(
        (image.transpose(0, 1) - mean) / deviation, tokenizer(PROMPT, return_tensors="pt").input_ids
    )
    assert loaded["hpsv2.1"].measure(image, image, PROMPT) == pytest.approx(
        100 * expected, rel=1e-4, abs=1e-4
    )


def test_hpsv2_has_the_parameters_of_the_published_network():
    from transformers import CLIPModel

    with torch.device("meta"):
        network = CLIPModel(hpsv2.vit_h_14())
    # open_clip's figure for ViT-H-14: 986.11 M.
    assert sum(value.numel() for value in network.parameters()) == 986_109_441


def test_crops():
    from budc.compiler.metrics.crops import centre_crop, pad_to_square

    wide = torch.zeros(1, 3, 4, 8)
    wide[..., 2:6] = 1
    assert centre_crop(wide, 4).eq(1).all()
    padded = pad_to_square(torch.ones(1, 3, 4, 8), 8)
    assert padded.shape == (1, 3, 8, 8)
    assert (padded[:, :, 2:6].eq(1).all(), float(padded.sum())) == (True, 3 * 4 * 8)
    # An odd remainder goes below and to the right.
    assert pad_to_square(torch.ones(1, 3, 8, 5), 8)[0, 0, 0].tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert centre_crop(torch.rand(1, 3, 30, 47), 16).shape == (1, 3, 16, 16)
