"""The file of a sweep: which runs it describes, and which files are refused."""

import argparse
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from rl_zoo3.utils import StoreDict

from sb3_flow.tables.grid import Run, command_of, expand, processes, read_sweep

ALGORITHMS = {"fql": {"policy", "alpha", "gamma", "dataset", "policy_kwargs", "seed"}, "td3": {"policy", "gamma", "dataset"}}
SMALL = """
    output: results
    seeds: 2
    tasks: [Pendulum-v1]
    algorithms: [fql]
"""


def runs(tmp_path: Path, text: str, **kwargs: object) -> list[Run]:
    """The runs of a file with a text."""
    file = tmp_path / "table.yml"
    file.write_text(textwrap.dedent(text), "utf-8")
    return expand(read_sweep(file), file, ALGORITHMS, **kwargs)  # type: ignore[arg-type]


def value(run: Run, flag: str) -> str | None:
    """What a run's command gives to an option."""
    return next((argument[len(flag) + 1 :] for argument in run.command if argument.startswith(f"{flag}=")), None)


def params(run: Run) -> dict[str, object]:
    """The hyperparameters of a run, as RL Zoo's own parser reads them from its command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-params", nargs="+", action=StoreDict, default={})
    parsed: dict[str, object] = parser.parse_known_args(list(run.command))[0].params
    return parsed


def test_a_table_is_the_product_of_its_parts(tmp_path: Path) -> None:
    text = """
        output: results
        seeds: [0, 5]
        tasks: [Pendulum-v1, MountainCarContinuous-v0]
        algorithms: [fql, td3]
    """
    listed = [(run.algo, run.env, run.seed) for run in runs(tmp_path, text)]
    # The first seed of everything comes first: the table fills evenly.
    assert listed == [
        (algo, env, seed) for seed in (0, 5) for algo in ("fql", "td3") for env in ("Pendulum-v1", "MountainCarContinuous-v0")
    ]


def test_a_run_has_its_command_and_its_folder(tmp_path: Path) -> None:
    text = """
        output: results
        seeds: [3]
        n_timesteps: !!float 1e4
        eval_freq: 500
        eval_samplers: [bc_flow]
        cpus: 2
        tasks: {Pendulum-v1: {dataset: "ogbench:a b", env_kwargs: {g: 9.81}}}
        algorithms: {fql: {policy_kwargs: {net_arch: [64, 64], activation: gelu, time_dim: null}}}
    """
    (run,) = runs(tmp_path, text)
    assert run.folder == Path("results/fql/Pendulum-v1_4")
    assert (run.algo, run.env, run.seed, run.setting, run.timesteps) == ("fql", "Pendulum-v1", 3, None, 10_000)
    assert run.command[0] == "train" and "--resume" in run.command
    flags = {"--algo": "fql", "--env": "Pendulum-v1", "--seed": "3", "--run-id": "4", "--log-folder": "results"}
    flags |= {"--n-timesteps": "10000", "--eval-freq": "500", "--num-threads": "2", "--device": "cpu", "--save-freq": None}
    assert {flag: value(run, flag) for flag in flags} == flags
    samplers = run.command.index("--eval-samplers")
    assert run.command[samplers + 1] == "bc_flow"
    assert run.command[run.command.index("--env-kwargs") + 1] == "g:9.81"
    assert params(run) == {
        "dataset": "ogbench:a b",
        "policy_kwargs": {"net_arch": [64, 64], "activation": "gelu", "time_dim": None},
    }


def test_seeds_share_processes(tmp_path: Path) -> None:
    """Five seeds in processes of two, three of another algorithm in processes of their own: the first seeds come first."""
    text = """
        output: results
        seeds: 5
        seeds_per_process: 2
        gamma: 0.9
        tasks: [Pendulum-v1]
        algorithms: {fql: , td3: {seeds: [4, 7], seeds_per_process: 1}}
    """
    listed = runs(tmp_path, text)
    groups = [(group[0].algo, [run.seed for run in group]) for group in processes(listed)]
    assert groups == [("fql", [0, 1]), ("td3", [4]), ("td3", [7]), ("fql", [2, 3]), ("fql", [4])]
    first, alone = processes(listed)[0], processes(listed)[-1]
    assert command_of(alone) == alone[0].command
    # All of them have the command of each, except for seed and folder.
    name, flag, *rest = command_of(first)
    assert (name, flag, rest[:2]) == ("train", "--seeds", ["0", "1"])
    for run in first:
        assert rest[2:] == [argument for argument in run.command[1:] if not argument.startswith(("--seed=", "--run-id="))]
    # After some have finished, the others are grouped again.
    left = [run for run in listed if run.algo == "fql" and run.seed in (1, 2, 4)]
    assert [[run.seed for run in group] for group in processes(left)] == [[1, 2], [4]]


def test_settings_do_not_share_processes(tmp_path: Path) -> None:
    text = f"{textwrap.dedent(SMALL)}\nseeds_per_process: 4\nsettings: {{a: , b: {{gamma: 0.5}}}}\n"
    assert [{run.setting for run in group} for group in processes(runs(tmp_path, text))] == [{"a"}, {"b"}]


@pytest.mark.parametrize("number", ["0", "1.5", "two"])
def test_seeds_per_process_is_a_whole_number(tmp_path: Path, number: str) -> None:
    with pytest.raises(ValueError, match=r"`seeds_per_process` is .*; expected a whole number above 0"):
        runs(tmp_path, f"{textwrap.dedent(SMALL)}\nseeds_per_process: {number}\n")


def test_the_more_specific_wins(tmp_path: Path) -> None:
    text = """
        output: results
        seeds: 1
        gamma: 0.1
        tasks: {Pendulum-v1: {gamma: 0.2}, MountainCarContinuous-v0: , MountainCar-v0: , CartPole-v1: {gamma: 0.3}}
        algorithms:
          td3:
          fql: {gamma: 0.4, tasks: {"MountainCar*": {gamma: 0.5}, MountainCarContinuous-v0: {gamma: 0.6}}}
    """
    gammas = {(run.algo, run.env): params(run)["gamma"] for run in runs(tmp_path, text)}
    assert gammas == {
        ("td3", "Pendulum-v1"): 0.2,
        ("td3", "MountainCarContinuous-v0"): 0.1,
        ("td3", "MountainCar-v0"): 0.1,
        ("td3", "CartPole-v1"): 0.3,
        ("fql", "Pendulum-v1"): 0.4,
        ("fql", "MountainCarContinuous-v0"): 0.6,
        ("fql", "MountainCar-v0"): 0.5,
        ("fql", "CartPole-v1"): 0.4,
    }


def test_settings_are_trees_of_their_own_and_win(tmp_path: Path) -> None:
    text = """
        output: results
        seeds: 1
        tasks: {Pendulum-v1: , CartPole-v1: }
        algorithms: {fql: {gamma: 0.4, tasks: {CartPole-v1: {gamma: 0.5}}}, td3: }
        settings:
          plain:
          other:
            gamma: 0.6
            tasks: {CartPole-v1: {gamma: 0.7}}
            algorithms: {fql: {alpha: 3, tasks: {CartPole-v1: {gamma: 0.8}}}, td3: {seeds: 0}}
    """
    found = {run.folder.as_posix(): (run.setting, params(run)) for run in runs(tmp_path, text)}
    assert found == {
        "results/plain/fql/Pendulum-v1_1": ("plain", {"gamma": 0.4}),
        "results/plain/fql/CartPole-v1_1": ("plain", {"gamma": 0.5}),
        "results/plain/td3/Pendulum-v1_1": ("plain", {}),
        "results/plain/td3/CartPole-v1_1": ("plain", {}),
        "results/other/fql/Pendulum-v1_1": ("other", {"gamma": 0.6, "alpha": 3}),
        "results/other/fql/CartPole-v1_1": ("other", {"gamma": 0.8, "alpha": 3}),
    }
    assert {value(run, "--log-folder") for run in runs(tmp_path, text)} == {"results/plain", "results/other"}


def test_patterns_stand_for_environments(tmp_path: Path) -> None:
    text = SMALL.replace("[Pendulum-v1]", '{"FrozenLake*-v1": {gamma: 0.5}}').replace("seeds: 2", "seeds: 1")
    assert {(run.env, params(run)["gamma"]) for run in runs(tmp_path, text)} == {
        ("FrozenLake-v1", 0.5),
        ("FrozenLake8x8-v1", 0.5),
    }


def test_a_cell_without_seeds_is_left_out_whatever_it_says(tmp_path: Path) -> None:
    text = """
        output: results
        seeds: 2
        tasks: {Pendulum-v1: , CartPole-v1: {alpha: 1.0}}
        algorithms: {fql: , td3: {tasks: {CartPole-v1: {seeds: 0}}}}
    """
    assert {(run.algo, run.env) for run in runs(tmp_path, text)} == {
        ("fql", "Pendulum-v1"),
        ("fql", "CartPole-v1"),
        ("td3", "Pendulum-v1"),
    }


def test_what_the_command_line_says_wins(tmp_path: Path) -> None:
    run = runs(tmp_path, SMALL + "    cpus: 1\n    gpus: 0", output=Path("elsewhere"), cpus=3.0, gpus=0.5)[0]
    assert run.folder == Path("elsewhere/fql/Pendulum-v1_1")
    assert (run.cpus, run.gpus) == (3, 0.5)
    assert (value(run, "--num-threads"), value(run, "--device")) == ("3", "cuda")


def test_values_keep_their_types_on_the_way_to_rl_zoo(tmp_path: Path) -> None:
    text = SMALL + "    policy_kwargs: {a: 1, b: 1.0, c: true, d: [x, [.inf]], e: {f: '1'}, g: 'it''s', h: 1.0e-4, i: '1e'}"
    expected = {"a": 1, "b": 1.0, "c": True, "d": ["x", [float("inf")]], "e": {"f": "1"}, "g": "it's", "h": 1e-4, "i": "1e"}
    found = params(runs(tmp_path, text)[0])["policy_kwargs"]
    assert repr(found) == repr(expected)


def test_merged_anchors_may_override(tmp_path: Path) -> None:
    text = """
        output: results
        seeds: 1
        tasks:
          Pendulum-v1: &base {gamma: 0.1, alpha: 1.0}
          CartPole-v1: &other {<<: *base, gamma: 0.2}
          MountainCar-v0: {<<: *other, gamma: 0.3}
        algorithms: [fql]
    """
    assert [params(run)["gamma"] for run in runs(tmp_path, text)] == [0.1, 0.2, 0.3]


def test_the_order_of_keys_changes_no_command(tmp_path: Path) -> None:
    assert runs(tmp_path, SMALL + "    alpha: 1\n    gamma: 0.5") == runs(tmp_path, SMALL + "    gamma: 0.5\n    alpha: 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + "    alhpa: 1", "table.yml: unknown key `alhpa`; did you mean `alpha`? Options: "),
        (SMALL + "    xyz: 1", "unknown key `xyz`; hyperparameters of fql: alpha, dataset, gamma, policy, policy_kwargs. Opt"),
        (SMALL + "    eval_frequency: 1", "unknown key `eval_frequency`; did you mean `eval_freq`?"),
        (SMALL + "    seed: 1", "unknown key `seed`; did you mean `seeds`?"),
        (SMALL.replace("[fql]", "{fql: {output: a}}"), "algorithms.fql: unknown key `output`"),
        (SMALL.replace("[fql]", "{fql: {algorithms: {fql: }}}"), "algorithms.fql: unknown key `algorithms`"),
        (SMALL.replace("[fql]", "{td3: {alpha: 1}}"), "algorithms.td3: unknown key `alpha`"),
        (SMALL.replace("[Pendulum-v1]", "{Pendulum-v1: {tasks: }}"), "tasks.Pendulum-v1: unknown key `tasks`"),
        (SMALL.replace("[fql]", "[flq]"), "algorithms: unknown algorithm `flq`; did you mean `fql`?"),
        (SMALL.replace("[fql]", "[ppo]"), "algorithms: unknown algorithm `ppo`; expected one of: fql, td3."),
        (SMALL.replace("Pendulum-v1", "Pendulm-v1"), "tasks: unknown environment in Gymnasium's registry `Pendulm-v1`; did"),
        (SMALL.replace("Pendulum-v1", "'Xyz*-v0'"), "unknown environment in Gymnasium's registry `Xyz*-v0`"),
        (SMALL.replace("[fql]", "{fql: {tasks: {A-v1: }}}"), "algorithms.fql.tasks: unknown task of this sweep `A-v1`"),
        (SMALL + "    settings: {a: {algorithms: [td3]}}", "settings.a.algorithms: unknown algorithm of this sweep `td3`"),
        (
            SMALL + "    settings: {a: {algorithms: {fql: {tasks: [A]}}}}",
            "settings.a.algorithms.fql.tasks: unknown task of this sweep `A`",
        ),
        (SMALL + "    settings: {fql: }", "settings: `fql` must be a valid folder name and not the name of an algorithm"),
        (SMALL + "    settings: {a/b: }", "settings: `a/b` must be a valid folder name"),
        (SMALL.replace("[fql]", "[fql, fql]"), "algorithms: `fql` is duplicate; keep one"),
        (SMALL.replace("[fql]", "{fql: , fql: }"), "table.yml, line 5: the key `fql` is duplicate; keep one"),
        (
            SMALL.replace("Pendulum-v1", "MountainCar-v0, 'MountainCar*'"),
            "`MountainCar-v0` matches two entries, `MountainCar-v0` and",
        ),
        (SMALL.replace("seeds: 2", "seeds: [1, 1]"), "`seeds` is [1, 1]; it must not have duplicates"),
        (SMALL.replace("seeds: 2", "seeds: -1"), "`seeds` is -1; expected the number of seeds, or a list"),
        (SMALL.replace("seeds: 2", "seeds: [true]"), "`seeds` is [True]; expected the number of seeds, or a list"),
        (SMALL.replace("seeds: 2", "seeds: 0"), "there are no runs"),
        (SMALL.replace("seeds: 2", ""), "`seeds` is missing"),
        (SMALL.replace("output: results", ""), "`output` is missing"),
        (SMALL.replace("tasks:", "task:"), "`tasks` is missing: a list of names, or a mapping from names to settings. Did"),
        (SMALL.replace("algorithms:", "algos:"), "`algorithms` is missing"),
        (SMALL.replace("[fql]", "fql"), "algorithms: expected a list of names, or a mapping from names to settings, not"),
        (SMALL.replace("[fql]", "{fql: 3}"), "algorithms.fql: expected a mapping, or nothing, not 3"),
        (
            SMALL + "    n_timesteps: 1e6",
            "`n_timesteps` is '1e6'; expected a whole number above 0. YAML reads this as text: wr",
        ),
        (SMALL + "    alpha: 3e-4", "`alpha` is '3e-4'. YAML reads this as text: write 0.0003, or !!float 3e-4."),
        (SMALL + "    policy_kwargs: {a: [1e3]}", "`policy_kwargs` is '1e3'. YAML reads this as text"),
        (SMALL + "    n_timesteps: 0", "`n_timesteps` is 0; expected a whole number above 0."),
        (SMALL + "    n_timesteps: 10.5", "`n_timesteps` is 10.5; expected a whole number above 0."),
        (SMALL + "    eval_episodes: true", "`eval_episodes` is True; expected a whole number above 0."),
        (SMALL + "    cpus: 0", "`cpus` is 0; expected a number above 0."),
        (SMALL + "    gpus: -1", "`gpus` is -1; expected a number above 0."),
        (SMALL + "    vec_env: 3", "`vec_env` is 3; expected one of: dummy, subproc."),
        (SMALL + "    env_kwargs: 3", "`env_kwargs` is 3; expected a mapping."),
        (SMALL + "    eval_samplers: bc_flow", "eval_samplers: expected a list of names, not 'bc_flow'"),
        (SMALL + "    conf_file: nowhere.yml", "`conf_file` is 'nowhere.yml', which does not exist"),
        (
            SMALL + "    alpha: 2020-01-01",
            "`alpha` contains datetime.date(2020, 1, 1); expected numbers, text, lists and mappings",
        ),
        (SMALL + "    packages: [no_such_module]", "packages: `no_such_module` cannot be imported"),
        ("[1, 2]", "a sweep is a mapping"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        runs(tmp_path, text)
    assert str(tmp_path / "table.yml") in str(caught.value)


def test_packages_are_imported_before_environments_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "envs_of_a_sweep.py"
    module.write_text("import gymnasium\ngymnasium.register('OfASweep-v0', 'nowhere:Env')\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = runs(tmp_path, SMALL.replace("Pendulum-v1", "OfASweep-v0") + "    packages: [envs_of_a_sweep]\n    alpha: 1")[0]
    assert run.env == "OfASweep-v0"
    assert " --gym-packages envs_of_a_sweep -params " in run.shell


@pytest.mark.nightly
@pytest.mark.slow
def test_ray_is_not_needed_to_look_at_a_sweep(tmp_path: Path) -> None:
    file = tmp_path / "table.yml"
    file.write_text(textwrap.dedent(SMALL), "utf-8")
    program = "import sys; sys.modules['ray'] = None; from sb3_flow.cli import main; "
    program += "assert main([*sys.argv[1:], '--dry-run']) == 0; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "sweep", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout.count("\nsb3-flow train --algo=fql --env=Pendulum-v1 --seed=") == 2
    assert "pip install 'sb3_flow[sweep]'" in done.stderr
    assert not (tmp_path / "results").exists()
