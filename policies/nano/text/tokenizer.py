"""The Unigram tokenizer of the embedded models: one token for each word, characters for anything else, lower case."""

from __future__ import annotations

import string
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from budc.policies.nano.data.captions import vocabulary

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"


def build_tokenizer(words: Iterable[str] | None = None) -> PreTrainedTokenizerFast:
    """Build it; token 0 is padding, 1 the end, 2 unknown, then come words, then characters."""
    words = vocabulary() if words is None else words
    pieces = [(token, 0.0) for token in (PAD, EOS, UNK)]
    pieces += [(f"▁{word}", -1.0) for word in words]
    pieces += [
        (piece, -20.0) for piece in ("▁", *string.ascii_lowercase, *string.digits, *string.punctuation)
    ]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, eos_token=EOS, unk_token=UNK)
