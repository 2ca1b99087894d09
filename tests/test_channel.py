"""A channel between threads: what waits is shared out, and nobody waits for ever."""

import threading

import pytest

from provisioning.descriptors.pipeline.threads import Channel


@pytest.fixture
def channel():
    channel = Channel(100, threading.Event())
    for n in range(10):
        channel.put(n)
    return channel


def test_a_taker_gets_its_share_of_what_waits_and_never_more_than_it_asked_for(channel):
    assert channel.take_share(8, of=4) == [0, 1, 2]
    assert channel.take_share(1, of=4) == [3]
    assert channel.take_share(8, of=1) == [4, 5, 6, 7, 8, 9]


def test_the_last_items_go_one_by_one_to_as_many_takers(channel):
    channel.close()
    taken = iter(lambda: channel.take_share(8, of=4), [])
    assert list(map(len, taken)) == [3, 2, 2, 1, 1, 1]
    assert channel.take() is None


def test_a_group_that_stopped_takes_nothing(channel):
    channel._stop.set()
    assert channel.take_share(8, of=4) == []
    assert channel.take() is None
    assert not channel.put(11)


def test_one_item_is_taken_and_the_others_stay(channel):
    assert channel.take() == 0
    assert channel.take_share(100, of=1) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_who_adds_to_a_full_channel_waits_for_room():
    channel = Channel(1, threading.Event())
    channel.put("first")
    added = threading.Thread(target=channel.put, args=["second"])
    added.start()
    added.join(0.2)
    assert added.is_alive()
    assert channel.take() == "first"
    added.join(30)
    assert channel.take() == "second"
