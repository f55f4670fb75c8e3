"""The cache folder and the bounded cache."""

from __future__ import annotations

import os
import random
import sys
import threading
from pathlib import Path

import pytest
from comfyui_creps.common.cache import LruCache, cache_folder


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("CREPS_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "creps"
    monkeypatch.setenv("CREPS_CACHE", os.fspath(tmp_path / "other"))
    assert cache_folder() == tmp_path / "other"


def test_the_least_recently_used_value_goes_first():
    cache = LruCache[str, int](2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    assert not cache.evicted
    cache.put("c", 3)
    assert cache.evicted
    assert [cache.get(key) for key in "abc"] == [1, None, 3]
    assert len(cache) == 2


def test_sizes_count():
    cache = LruCache[int, bytes](10, len)
    for i in range(5):
        cache.put(i, bytes(4))
    assert cache.size == 8
    assert list(cache.values()) == [bytes(4)] * 2
    cache.put(5, bytes(11))  # larger than the cache
    assert cache.size == len(cache) == 0


def test_room_is_made_before_a_value_is():
    cache = LruCache[int, str](2)
    cache.put(1, "one")
    cache.make_room()
    assert len(cache) == 1
    cache.put(2, "two")
    cache.make_room()
    assert list(cache.values()) == ["two"]
    cache.clear()
    assert cache.size == len(cache) == 0


def test_a_value_is_made_once_and_not_replaced():
    cache, made = LruCache[str, object](3), []

    def make() -> object:
        made.append(object())
        return made[-1]

    first = cache.get_or_make("a", make)
    assert cache.get_or_make("a", make) is first
    assert cache.put("a", object()) is first
    with pytest.raises(KeyError):
        cache.get_or_make("b", lambda: {}["b"])
    assert len(made) == len(cache) == 1


def test_threads_share_a_cache():
    cache, errors = LruCache[int, int](50, lambda value: value), []

    def work(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(2000):
            key = draw.randrange(20)
            if cache.get_or_make(key, lambda key=key: key) != key:
                errors.append(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert cache.size == sum(cache.values()) <= 50
