"""Prompt files: three formats, and errors that name the file and the line."""

import os
from pathlib import Path

import pytest

from budc.policies import prompt_files
from budc.policies.prompt_files import Prompt, read_prompt_file
from budc.schema.errors import UsageError


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_text_file_has_a_prompt_on_each_line(tmp_path):
    path = written(tmp_path, "mine.txt", "\ufeffa red box\r\n\r\n  a blue ring, small \r\n")
    assert read_prompt_file(path) == (Prompt("a red box", 1), Prompt("a blue ring, small", 3))
    assert read_prompt_file(path, 1) == (Prompt("a red box", 1),)


def test_csv_and_jsonl_say_the_same(tmp_path):
    table = 'prompt,seed,negative_prompt\n"a red, round box",7,blurred\n\na blue ring,,\na red box,8,\na red box,9,\n'
    lines = (
        '{"prompt": "a red, round box", "seed": 7, "negative_prompt": "blurred"}\n\n{"prompt": "a blue ring"}\n'
        '{"prompt": "a red box", "seed": 8}\n{"seed": 9, "prompt": "a red box"}\n'
    )
    from_csv = read_prompt_file(written(tmp_path, "mine.csv", table))
    from_json = read_prompt_file(written(tmp_path, "MINE.JSONL", lines))
    assert from_csv[0] == Prompt("a red, round box", 2, 7, "blurred")
    assert from_csv[1] == Prompt("a blue ring", 4, None, None)
    assert [prompt[:1] + prompt[2:] for prompt in from_csv] == [
        prompt[:1] + prompt[2:] for prompt in from_json
    ]


def test_an_empty_negative_prompt_can_be_said_in_json(tmp_path):
    (prompt,) = read_prompt_file(written(tmp_path, "a.jsonl", '{"prompt": "a", "negative_prompt": ""}'))
    assert prompt.negative == ""


def test_an_image_is_named_relative_to_the_file_or_whole(tmp_path):
    table = written(tmp_path, "a.csv", "prompt,image\na,images/box.png\nb,/data/../ring.png\nc,\n")
    lines = written(tmp_path, "a.jsonl", '{"prompt": "a", "image": "images/box.png"}')
    assert [prompt.image for prompt in read_prompt_file(table)] == [
        tmp_path / "images" / "box.png",
        Path("/data/../ring.png"),
        None,
    ]
    assert read_prompt_file(lines)[0].image == tmp_path / "images" / "box.png"


def test_one_prompt_may_have_several_images(tmp_path):
    path = written(tmp_path, "a.csv", "prompt,image\na,x.png\na,y.png\n")
    assert len(read_prompt_file(path)) == 2
    with pytest.raises(UsageError, match=r"b\.csv, line 3: the prompt of line 2 a second time"):
        read_prompt_file(written(tmp_path, "b.csv", "prompt,image\na,x.png\na,x.png\n"))


BAD = {
    "empty.txt": ("\n \n", r"empty\.txt: 0 prompts, 1 needed"),
    "latin.txt": (
        b"a red box\na r\xf6d box\n",
        r"latin\.txt, line 2: cannot read prompts: not UTF-8 \(byte 13\)",
    ),
    "utf16.csv": ("prompt\na".encode("utf-16"), r"utf16\.csv, line 1: .*not UTF-8"),
    "long.txt": ("short\n" + "x" * 8193, r"long\.txt, line 2: a prompt of 8193 characters, at most 8192"),
    "twice.txt": ("a\nb\na\n", r"twice\.txt, line 3: the prompt of line 1 a second time"),
    "control.txt": ("a\x00b", r"control\.txt, line 1: the prompt holds a control character \(U\+0000\)"),
    "header.csv": ("promt,seed\na,1\n", r"header\.csv, line 1: 'promt' is no column"),
    "columns.csv": ("seed\n1\n", r"columns\.csv, line 1: no column is named prompt"),
    "double.csv": ("prompt,prompt\na,b\n", r"double\.csv, line 1: 'prompt' .* is there twice"),
    "cells.csv": ("prompt,seed\na red, round box,1\n", r"cells\.csv, line 2: 3 cells under 2 columns"),
    "seed.csv": ("prompt,seed\na,1\nb,two\n", r"seed\.csv, line 3: .*seed"),
    "quote.csv": ('prompt\n"a\n', r"quote\.csv, line 2: not CSV"),
    "no-prompt.csv": ("prompt,seed\n,1\n", r"no-prompt\.csv, line 2: .*prompt"),
    "negative.jsonl": ('{"prompt": "a", "seed": -1}', r"negative\.jsonl, line 1: .*seed"),
    "key.jsonl": ('{"prompt": "a"}\n{"prompt": "b", "sed": 1}', r"key\.jsonl, line 2: .*sed"),
    "image.jsonl": ('{"prompt": "a", "image": ""}', r"image\.jsonl, line 1: .*image"),
    "not.jsonl": ("a red box\n", r"not\.jsonl, line 1: "),
    "deep.jsonl": ("[" * 10000, r"deep\.jsonl, line 1: "),
    "blank.jsonl": ('{"prompt": " "}', r"blank\.jsonl, line 1: the prompt is empty"),
    "half.jsonl": ('{"prompt": "\\ud800"}', r"half\.jsonl, line 1: "),
    "hidden.jsonl": (
        '{"prompt": "a", "negative_prompt": "b\\u202e"}',
        r"hidden\.jsonl, line 1: .*negative_prompt",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_naming_file_and_line(tmp_path, name):
    content, message = BAD[name]
    with pytest.raises(UsageError, match=message) as caught:
        read_prompt_file(written(tmp_path, name, content))
    assert caught.value.remedy


def test_prompts_are_read_from_bounded_files_only(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "gone", tmp_path / ("x" * 300)):
        with pytest.raises(UsageError, match="cannot read prompts"):
            read_prompt_file(path)
    monkeypatch.setattr(prompt_files, "MAX_BYTES", 10)
    with pytest.raises(UsageError, match="over 10 bytes"):
        read_prompt_file(written(tmp_path, "long.txt", "a prompt of more than ten bytes\n"))


def test_too_few_prompts_are_refused(tmp_path):
    path = written(tmp_path, "prompts.txt", "one\n\ntwo\n")
    with pytest.raises(UsageError, match="2 prompts, 3 needed"):
        read_prompt_file(path, 3)
