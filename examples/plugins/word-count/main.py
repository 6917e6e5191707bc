#!/usr/bin/env python3
"""Counts the words of a file, and tells the most frequent ones."""

from collections import Counter

from plugins.sdk import Context, PluginError, plugin, serve


@plugin
def word_count(context: Context, path: str, top: int = 3) -> dict[str, str]:
    """Count the words of a file in the workspace."""
    file = context.workspace / path
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PluginError(f"{path}: {error.strerror}") from error
    words: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        words.update(line.lower().split())
        if number % 10_000 == 0:
            context.progress(number / len(lines), f"line {number}")
    for word, times in words.most_common(top):
        context.log(f"{times:6} {word}")
    return {"words": str(words.total())}


if __name__ == "__main__":
    serve(word_count)
