"""Slips of syntax in config.txt: each is shown with its line and its cure."""

from __future__ import annotations

import pytest

from .configs import CONFIG, DL_INFERENCE_EXAMPLE, changed, refusal


@pytest.mark.parametrize(
    ("content", "line", "code", "message", "hint"),
    [
        (changed("8,", "8, // none"), 2, "comment", 'JSON has no comments: `"batch_size": 8, // none`', "remove it"),
        (changed("8,", "8, # none"), 2, "comment", "JSON has no comments", "remove it"),
        (changed("8,", "8, /* n\n */"), 2, "comment", "JSON has no comments", "remove it"),
        (CONFIG + "\n# read with saved_model_cli", 27, "comment", "JSON has no comments", "remove it"),
        (changed("1],", "1,],"), 7, "trailing-comma", "a comma stands before the closing ']'", "remove the comma"),
        (changed("}\n    ],", "},\n    ],"), 15, "trailing-comma", "a comma stands before the closing ']'", "remove"),
        (changed('1:0"\n', '1:0",\n'), 8, "trailing-comma", "before the closing '}': `\"node_name\"", "remove"),
        (changed('"image"', "'image'"), 5, "syntax", "JSON has no single quotes", "double quotes"),
        (changed("28, 28", "28, NaN"), 7, "syntax", "JSON has no NaN", "finite"),
        (changed("28, 28", "28, -Infinity"), 7, "syntax", "JSON has no -Infinity", "finite"),
        (changed("28, 28", "28, 1e999"), 7, "syntax", "'1e999' is too large", "64 bits"),
        (changed("28, 28", "28, 028"), 7, "syntax", "'028' is not a number", "no leading 0"),
        (changed("28, 28", "28, None"), 7, "syntax", "JSON has no None", "write null"),
        (changed("28, 28", "28 28"), 7, "syntax", "',' is missing between `28` and `28`", "add it"),
        (changed("28, 28", "28,, 28"), 7, "syntax", "nothing stands before this comma", "remove"),
        (changed("28, 28", "28\uff0c28"), 7, "syntax", "'\uff0c' only looks like JSON", "write , in"),
        (changed('"image"', "\u201cimage\u201d"), 5, "syntax", "'\u201c' only looks like JSON", 'write " in'),
        (changed('"image"', "image"), 5, "syntax", "'image' is not JSON", "double quotes"),
        (changed('"image",', '"image"'), 5, "syntax", 'missing between `"image"` and `"data_type"`', "add"),
        (changed('"image"', '"image'), 5, "syntax", "not closed on its line", 'closing "'),
        (changed('"image"', '"im\\xage"'), 5, "syntax", "a backslash", r"\n"),
        (changed('"image"', '"\\ud800"'), 5, "syntax", "half a character", r"\u"),
        (changed('"image"', '"a\tb"'), 5, "syntax", "control character", r"\t"),
        (changed("],", "},"), 7, "syntax", "'}' stands where the '[' of line 7 wants ']'", "write ']'"),
        (CONFIG.rstrip()[:-1], 1, "syntax", "this '{' is never closed", "'}'"),
        (CONFIG + "}", 26, "syntax", "ended before", "remove it"),
        (changed('"name":', "1:"), 5, "syntax", "keys must be strings", '"key"'),
        ("", 1, "syntax", "the file is empty", '"batch_size"'),
        (" \n\t", 1, "syntax", "the file is empty", '"batch_size"'),
        ("[" * 100_000, 1, "nesting", "more than 200 brackets", "four deep"),
        ('{"a":' * 1_000 + "1" + "}" * 1_000, 1, "nesting", "more than 200 brackets", "four deep"),
        ("\ufeff" + CONFIG, 1, "bom", "byte order mark", "without BOM"),
        (b"\xef\xbb\xbf" + CONFIG.encode(), 1, "bom", "byte order mark", "without BOM"),
        (CONFIG.encode("utf-16"), 1, "encoding", "UTF-16", "iconv"),
        (CONFIG.encode("utf-16-le"), 1, "encoding", "UTF-16", "iconv"),
        (changed("image", "图像").encode("gbk"), 5, "encoding", "is not UTF-8", "iconv -f GBK"),
        (changed("image", "\ud800"), 5, "encoding", "half a character", "UTF-8"),
        (changed('"image",', '"image",\n"name": "b",'), 6, "duplicate-key", "input[0].name: ", "keep one"),
        (changed('"image",', '"image",\n"n\\u0061me": "b",'), 6, "duplicate-key", "already in line 5", "keep one"),
    ],
)
def test_a_slip_of_syntax_is_shown_with_its_line_and_its_cure(
    content: str | bytes, line: int, code: str, message: str, hint: str
) -> None:
    error = refusal(content)

    assert error.message.startswith(f"config.txt, line {line}: ")
    assert error.code == f"metadata.{code}"
    assert message in error.message
    assert hint in error.hint


def test_an_error_in_a_file_of_one_line_shows_the_part_around_it() -> None:
    error = refusal(DL_INFERENCE_EXAMPLE.replace("224,3]", "224,3,]"))

    assert "224,3,]" in error.message
    assert len(error.message) < 180
