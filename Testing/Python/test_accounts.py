"""Users, roles and tokens, in processes and from the command line."""

import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
from InteractiveLearningLib import cli
from InteractiveLearningLib.service.accounts import Accounts, FailedAttempts, NotAllowed, Role, allowed
from InteractiveLearningLib.service.audit import Action, AuditLog
from RefSegLib.errors import BadInput, RefSegError


class Clock:
    def __init__(self):
        self.time = datetime(2030, 1, 1, tzinfo=timezone.utc)

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def accounts(tmp_path, clock):
    made = Accounts(tmp_path, clock)
    made.add("anna", Role.REVIEWER)
    return made


def test_a_token_opens_for_its_user_and_only_its_hash_is_kept(accounts, tmp_path):
    token = accounts.give_token("anna")
    assert accounts.user_of(token).name == "anna"
    secret = token.partition(".")[2]
    assert len(secret) == 43  # 32 bytes
    assert not any(secret.encode() in path.read_bytes() for path in (tmp_path / "service").iterdir())
    assert accounts.give_token("anna") != token


def test_other_secrets_ids_and_nonsense_open_nothing(accounts):
    token, other = accounts.give_token("anna"), accounts.give_token("anna")
    identifier, _, secret = token.partition(".")
    crossed = f"{identifier}.{other.partition('.')[2]}"
    for wrong in (crossed, token[:-1], token + "x", secret, identifier, "", ".", "é\udc80", "a" * 10**6, token.upper()):
        with pytest.raises(NotAllowed, match="not known"):
            accounts.user_of(wrong)


def test_revoking_counts_at_once_in_another_process_too(accounts, tmp_path):
    kept, lost = accounts.give_token("anna"), accounts.give_token("anna")
    code = (
        "import sys; from InteractiveLearningLib.service.accounts import Accounts;"
        "Accounts(sys.argv[1]).revoke_token(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path, lost.partition(".")[0]], check=True)
    with pytest.raises(NotAllowed, match="revoked"):
        accounts.user_of(lost)
    assert accounts.user_of(kept).name == "anna"
    Accounts(tmp_path).revoke("anna")
    with pytest.raises(NotAllowed, match="revoked"):
        accounts.user_of(kept)
    with pytest.raises(BadInput, match="no user 'anna' with access"):
        accounts.give_token("anna")
    with pytest.raises(BadInput, match="is or was"):
        accounts.add("anna", Role.ADMINISTRATOR)


def test_a_token_expires_and_its_last_use_is_noted_by_the_minute(accounts, clock):
    token = accounts.give_token("anna", timedelta(days=1))
    first = clock.time
    accounts.user_of(token)
    clock.time += timedelta(seconds=30)
    accounts.user_of(token)
    assert accounts.users()[0].tokens[0].used == first
    clock.time += timedelta(seconds=30)
    accounts.user_of(token)
    assert accounts.users()[0].tokens[0].used == clock.time
    clock.time = first + timedelta(days=1)
    with pytest.raises(NotAllowed, match="expired"):
        accounts.user_of(token)


def test_roles_may_do_what_the_table_says(accounts):
    may = {role: {action for action in Action if allowed(role, action)} for role in Role}
    assert may[Role.ANNOTATOR] < may[Role.REVIEWER] < may[Role.ADMINISTRATOR] == set(Action)
    assert may[Role.ANNOTATOR] == {Action.SEGMENT, Action.ANNOTATE}
    assert may[Role.ADMINISTRATOR] - may[Role.REVIEWER] == {
        Action.PUBLISH,
        Action.FORGET,
        Action.READ_AUDIT,
        Action.ADD_USER,
        Action.REVOKE_USER,
        Action.GIVE_TOKEN,
        Action.REVOKE_TOKEN,
    }
    token = accounts.give_token("anna")
    assert accounts.check(token, Action.ACCEPT).role is Role.REVIEWER
    with pytest.raises(NotAllowed, match="As reviewer you may not forget"):
        accounts.check(token, Action.FORGET)


@pytest.mark.parametrize("name", ["", "Anna", "console", "anna doe", "../x", "a" * 33, "Doe^Jane"])
def test_names_that_are_none_are_refused(accounts, name):
    with pytest.raises(BadInput, match="cannot be the name"):
        accounts.add(name, Role.ANNOTATOR)


def test_every_change_is_in_the_audit_log_and_none_is_made_that_cannot_be_logged(accounts, tmp_path):
    token = accounts.give_token("anna", by="ines")
    log = AuditLog(tmp_path)
    found = [(entry.who, entry.action, entry.about.user) for entry in log.entries()]
    assert found == [("console", Action.ADD_USER, "anna"), ("ines", Action.GIVE_TOKEN, "anna")]
    assert token.partition(".")[2] not in log.path.read_text()
    log.path.write_text("damaged\n")
    with pytest.raises(RefSegError):
        Accounts(tmp_path).add("hans", Role.ANNOTATOR)
    assert [user.name for user in accounts.users()] == ["anna"]


def test_processes_that_add_users_at_the_same_time_lose_none(tmp_path):
    code = (
        "import sys; from InteractiveLearningLib.service.accounts import Accounts, Role\n"
        "for n in range(5): Accounts(sys.argv[1]).add(f'{sys.argv[2]}{n}', Role.ANNOTATOR)"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, tmp_path, name]) for name in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(Accounts(tmp_path).users()) == 15
    assert AuditLog(tmp_path).verify() == 15


def test_damaged_accounts_are_told_in_a_sentence_and_kept(accounts):
    accounts.path.write_text('{"users": ')
    with pytest.raises(RefSegError, match="damaged"):
        accounts.add("hans", Role.ANNOTATOR)
    assert accounts.path.read_text() == '{"users": '


def test_failed_attempts_are_limited_per_address_in_a_sliding_window():
    now = [0.0]
    attempts = FailedAttempts(limit=3, seconds=60, clock=lambda: now[0])
    for time in (0.0, 10.0, 20.0):
        now[0] = time
        assert attempts.wait("a") == 0
        attempts.failed("a")
    assert attempts.wait("a") == 40 and attempts.wait("b") == 0
    now[0] = 60.0
    assert attempts.wait("a") == 0
    attempts.failed("a")
    assert attempts.wait("a") == 10
    now[0] = 200.0
    attempts.failed("b")
    assert attempts.wait("a") == 0


def refseg(home, capsys, *words):
    before, sys.argv = sys.argv, ["refseg", *words, "--store", str(home)]
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_commands_work_and_a_token_stands_alone_on_standard_output(tmp_path, capsys):
    assert refseg(tmp_path, capsys, "users", "add", "anna", "--role", "annotator")[0] == 0
    code, out, _ = refseg(tmp_path, capsys, "users", "token", "anna", "--days", "30")
    token = out.rstrip("\n")
    assert code == 0 and out == f"{token}\n" and Accounts(tmp_path).user_of(token).name == "anna"
    identifier = token.partition(".")[0]
    listed = refseg(tmp_path, capsys, "users", "list")[1]
    assert identifier in listed and token not in listed
    head = refseg(tmp_path, capsys, "audit", "head")[1].strip()
    assert refseg(tmp_path, capsys, "users", "revoke", "--token", identifier)[0] == 0
    assert refseg(tmp_path, capsys, "users", "revoke", "anna")[0] == 0
    code, out, _ = refseg(tmp_path, capsys, "audit", "verify", "--head", head)
    assert code == 0 and "whole: 4 entries" in out
    shown = refseg(tmp_path, capsys, "audit", "show", "--last", "2")[1].splitlines()
    assert [line.split("\t")[3] for line in shown] == ["revoke token", "revoke user"]
    log = AuditLog(tmp_path).path
    log.write_bytes(log.read_bytes().replace(b"anna", b"hans", 1))
    code, _, err = refseg(tmp_path, capsys, "audit", "verify")
    assert code == 2 and "damaged in line 1," in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("users", "revoke"), "either which user or"),
        (("users", "revoke", "nobody"), "no user 'nobody'"),
        (("users", "token", "nobody"), "no user 'nobody'"),
        (("users", "token", "nobody", "--days", "1e300"), "cannot last that long"),
        (("audit", "verify", "--head", "x"), "no head of an audit log"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_a_sentence(tmp_path, capsys, words, said):
    code, out, err = refseg(tmp_path, capsys, *words)
    assert code == 2 and said in err and out == ""
