"""A session loses nothing, undoes everything, replays bit for bit, and leaves neighbors alone."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from annotated_case import IMAGE, LABELS, OBLIQUE, SHAPE, TRUTH, apply_forever, click, model_probabilities, outline
from InteractiveLearningLib.prompts import Box, Click, Limits, Outline, Scribble
from InteractiveLearningLib.session import Session
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.quality.metrics import dice
from RefSegLib.volume.volume import Volume
from scipy import ndimage


@pytest.fixture
def session(tmp_path):
    with Session.create(tmp_path / "case", Volume(IMAGE, OBLIQUE), LABELS, model_probabilities()) as made:
        yield made


def every_kind():
    return [
        Limits.on(OBLIQUE, 0, 3, 17, 1),
        outline(10, 1),
        click(6, 9, 15, True, 1),
        outline(12, 2),
        click(14, 32, 25, False, 2, axis=2),
        Scribble(tuple(tuple(OBLIQUE.to_world((8, 12, i))) for i in (24, 26, 28)), True, 2, 0),
        outline(20, 1, axis=1),
        Box((tuple(OBLIQUE.to_world((1, 2, 2))), tuple(OBLIQUE.to_world((18, 38, 41)))), 2),
        click(10, 20, 24, True, 1),
    ]


def test_a_new_session_shows_what_the_model_sees(session):
    np.testing.assert_array_equal(session.labels().array, model_probabilities().argmax(axis=0))
    assert session.labels().grid == OBLIQUE


def test_outlined_slices_are_exact_and_make_the_mask_better_around_them(session):
    before = session.labels().array
    changed = session.apply(outline(10, 1))
    after = session.labels().array
    np.testing.assert_array_equal(after[10] == 1, TRUTH[10] == 1)
    assert dice(after[11] == 1, TRUTH[11] == 1) > dice(before[11] == 1, TRUTH[11] == 1) + 0.05
    lower, upper = changed
    box = tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))
    outside = np.ones(SHAPE, bool)
    outside[box] = False
    np.testing.assert_array_equal(after[outside], before[outside])
    assert (after != before)[box].any()


def test_a_click_is_obeyed_where_it_was_made_in_the_patient(session):
    session.apply(click(10, 8, 18, True, 1))
    assert session.labels().array[10, 8, 18] == 1
    session.apply(click(10, 8, 18, False, 1))
    assert session.labels().array[10, 8, 18] == 0


def test_prompts_of_a_label_leave_the_voxels_of_others_alone(session):
    free = TRUTH.copy()
    free[TRUTH == 1] = 0
    session.apply(Limits.on(OBLIQUE, 0, 3, 17, 1))
    other = session.labels().array == 2
    drawn = (np.take(TRUTH, 10, 0) == 1) & ~other[10]
    for prompt in (Outline.on(OBLIQUE, 0, 10, drawn, 1), click(5, 20, 4, True, 1), click(10, 30, 15, False, 1)):
        session.apply(prompt)
        np.testing.assert_array_equal(session.labels().array == 2, other)


def test_a_click_inside_another_label_moves_voxels_from_it(session):
    assert session.labels().array[10, 22, 23] == 2
    session.apply(click(10, 22, 23, True, 1))
    assert session.labels().array[10, 22, 23] == 1


def test_what_limits_take_from_one_label_goes_to_the_next_likeliest_and_stays_there(session):
    before = session.labels().array
    beyond = (before == 1) & (np.arange(before.shape[2]) > 19)
    inside = beyond & ndimage.binary_erosion(before > 0, iterations=3)
    assert inside.any()
    session.apply(Limits.on(OBLIQUE, 2, 8, 19, 1))
    limited = session.labels().array
    assert (limited[inside] == 2).all()
    assert not (limited == 1)[..., 20:].any()
    right = (TRUTH[4] > 0) & (np.arange(TRUTH.shape[2]) > 19)
    session.apply(Outline.on(OBLIQUE, 0, 4, right, 2))
    assert (session.labels().array[inside] == 2).all()
    session.undo()
    session.undo()
    assert np.array_equal(session.labels().array, before)


def test_undo_and_redo_go_through_every_state_and_say_what_they_do(session):
    seen = [session.labels().array]
    for prompt in every_kind():
        session.apply(prompt)
        seen.append(session.labels().array)
    assert session.undo_name == "positive click for left part"
    for expected in seen[-2::-1]:
        session.undo()
        np.testing.assert_array_equal(session.labels().array, expected)
    assert session.undo_name is None
    assert session.redo_name == "limits of left part"
    for expected in seen[1:]:
        session.redo()
        np.testing.assert_array_equal(session.labels().array, expected)
    with pytest.raises(BadInput, match="nothing to redo"):
        session.redo()


def test_a_new_prompt_after_an_undo_drops_what_could_be_redone(session):
    session.apply(outline(10, 1))
    session.undo()
    session.apply(outline(9, 1))
    assert session.redo_name is None


def test_the_log_gives_the_same_mask_bit_for_bit_in_a_fresh_process(session):
    for prompt in every_kind():
        session.apply(prompt)
    session.undo()
    session.undo()
    session.redo()
    expected, name = session.labels().array, session.redo_name
    session.close()
    code = (
        "import sys, numpy as np; from InteractiveLearningLib.session import Session\n"
        "s = Session.open(sys.argv[1]); np.save(sys.argv[2], s.labels().array); print(s.redo_name)"
    )
    saved = session.folder / "again.npy"
    done = subprocess.run(
        [sys.executable, "-c", code, str(session.folder), str(saved)], capture_output=True, text=True, check=True
    )
    np.testing.assert_array_equal(np.load(saved), expected)
    assert done.stdout.strip() == name


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a thing of POSIX")
def test_killed_ten_times_it_reopens_with_everything_that_was_acknowledged(session):
    session.close()
    # A server that has done the slow imports forks the processes; forking this one could copy a held lock.
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(["InteractiveLearningLib.session"])
    rng = np.random.default_rng(0)
    for _ in range(10):
        pipe, end = forked.Pipe(duplex=False)
        worker = forked.Process(target=apply_forever, args=(session.folder, end))
        worker.start()
        end.close()
        acknowledged = int(pipe.recv_bytes())
        time.sleep(rng.uniform(0, 0.2))
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        try:
            while True:
                acknowledged = int(pipe.recv_bytes())
        except (EOFError, OSError):
            pass
        with Session.open(session.folder) as again:
            assert acknowledged <= len(again.export_log()) <= acknowledged + 1


def test_a_torn_last_line_is_dropped_and_everything_before_is_kept(session):
    session.apply(outline(10, 1))
    expected = session.labels().array
    session.apply(outline(12, 2))
    session.close()
    path = session.folder / "session.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    with Session.open(session.folder) as again:
        np.testing.assert_array_equal(again.labels().array, expected)
        again.apply(outline(12, 2))
    with Session.open(session.folder) as again:
        assert len(again.prompts()) == 2


def test_a_change_in_the_middle_of_the_log_is_noticed(session):
    for n in (9, 10, 11):
        session.apply(outline(n, 1))
    session.close()
    path = session.folder / "session.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace('"label":1', '"label":2')
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RefSegError, match="damaged in line 3"):
        Session.open(session.folder)


def test_a_full_disk_loses_nothing_and_changes_nothing(session, monkeypatch):
    session.apply(outline(10, 1))
    before = session.labels().array

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RefSegError, match="could not be saved"):
            session.apply(outline(12, 2))
    np.testing.assert_array_equal(session.labels().array, before)
    session.apply(outline(12, 2))
    session.close()
    with Session.open(session.folder) as again:
        assert len(again.prompts()) == 2


@pytest.mark.skipif(os.name == "nt", reason="sessions are locked on POSIX only")
def test_a_session_is_open_in_one_place_at_a_time(session):
    with pytest.raises(RefSegError, match="open in another program"):
        Session.open(session.folder)


def test_a_damaged_image_of_a_session_is_refused_in_words(session):
    session.close()
    name = json.loads((session.folder / "session.jsonl").read_text().splitlines()[0])["event"]["image"]
    (session.folder / "arrays" / name).write_bytes(b"half")
    with pytest.raises(RefSegError, match="damaged"):
        Session.open(session.folder)


def test_a_structure_no_model_knows_is_made_from_three_outlines_and_two_marks(tmp_path):
    marks = [Limits.on(OBLIQUE, 0, 3, 17, 1)]
    with Session.create(tmp_path / "new", Volume(IMAGE, OBLIQUE), LABELS[:1], limits=marks) as session:
        assert not session.labels().array.any()
        for index in (5, 10, 15):
            session.apply(outline(index, 1))
        assert dice(session.labels().array == 1, TRUTH == 1) > 0.9
        assert session.result(1).estimated_dice > 0.7


def test_clicks_alone_begin_a_structure_no_model_knows(tmp_path):
    with Session.create(tmp_path / "new", Volume(IMAGE, OBLIQUE), LABELS[1:]) as session:
        session.apply(click(10, 20, 28, True, 2))
        assert dice(session.labels().array[10] == 2, TRUTH[10] == 2) > 0.8


def test_what_is_accepted_says_how_far_it_is_to_be_trusted_and_what_it_cost(session):
    session.apply(outline(10, 1))
    session.apply(click(5, 20, 4, False, 1))
    accepted = session.accepted()
    assert accepted.annotated == ((0, 10),)
    assert accepted.interactions == 2
    assert accepted.boundary_pixels > 20
    assert accepted.confidence.dtype == np.float32
    assert 0 <= accepted.confidence.min() <= accepted.confidence.max() <= 1
    assert (accepted.confidence[10][TRUTH[10] == 1] == 1).all()
    np.testing.assert_array_equal(accepted.labels.array, session.labels().array)


def test_the_session_suggests_slices_until_none_is_worth_it(session):
    asked = set()
    while not isinstance(found := session.suggest(1), str):
        assert found.index not in asked
        asked.add(found.index)
        session.apply(outline(found.index, 1, found.axis))
    assert 2 <= len(asked) <= 15
    assert dice(session.labels().array == 1, TRUTH == 1) > 0.95


def test_what_does_not_fit_is_refused_in_words_and_changes_nothing(session):
    before = session.labels().array
    wrong = [
        (Click((9999.0, 0.0, 0.0), True, 1), "outside the image"),
        (Click((0.0, 0.0, 0.0), True, 7), "no label 7"),
        (Outline(0, 3, np.ones((2, 2), bool), 1), "does not fit"),
        (Outline(0, 99, np.ones(SHAPE[1:], bool), 1), "does not fit"),
    ]
    for prompt, words in wrong:
        with pytest.raises(BadInput, match=words):
            session.apply(prompt)
    np.testing.assert_array_equal(session.labels().array, before)
    assert session.prompts() == []


def test_a_session_cannot_be_begun_on_nothing_or_twice(session, tmp_path):
    with pytest.raises(BadInput, match="already a session"):
        Session.create(session.folder, Volume(IMAGE, OBLIQUE), LABELS)
    with pytest.raises(BadInput, match="no session"):
        Session.open(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="not numbers"):
        Session.create(tmp_path / "nan", Volume(np.full(SHAPE, np.nan), OBLIQUE), LABELS)
    with pytest.raises(BadInput, match="are needed"):
        Session.create(tmp_path / "odd", Volume(IMAGE, OBLIQUE), LABELS, model_probabilities()[:2])


def test_earlier_prompts_about_a_label_the_session_does_not_have_are_refused(tmp_path):
    with pytest.raises(BadInput, match="label 7"):
        Session.create(tmp_path / "s", Volume(IMAGE, OBLIQUE), LABELS, earlier=[click(6, 9, 15, True, 7)])
    assert not (tmp_path / "s").exists()
