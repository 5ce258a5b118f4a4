"""The command line: options, configurations in YAML, and values on the command line."""

import contextlib
import io
import shlex
from pathlib import Path
from typing import Any

from breaker.outcome import Input
from sb3_flow.cli import main

TRAIN = "train --algo fql --env Pendulum-v1 --conf-file c.yml --eval-freq -1 --checkpoint-freq 0"
STUDY = "optimize --algo fql --env Pendulum-v1 --conf-file c.yml -n 20 --n-trials 1 --no-optim-plots"
ENTRY = {
    "policy": "FlowPolicy",
    "n_timesteps": "12",
    "policy_kwargs": "{net_arch: [4]}",
    "batch_size": "4",
    "learning_starts": "5",
}
SWEEP = {"output": "x", "seeds": "1", "tasks": "[Pendulum-v1]", "algorithms": "[fql]"}


def command(line: str, folder: Path, files: dict[str, str] | None = None) -> int:
    """Run a command; what it prints as an error is raised as one."""
    for name, text in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            code = main(shlex.split(line))
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
    if code != 0:
        assert code == 2 and "Traceback" not in errors.getvalue() + output.getvalue()
        raise ValueError(errors.getvalue().strip().splitlines()[-1])
    return code


def of_options() -> list[Input]:
    wrong = {
        "": "the following arguments are required: COMMAND",
        "trian": "invalid choice: 'trian'",
        f"{TRAIN} -n 0": "--n-timesteps is 0; it must be at least 1",
        f"{TRAIN} -n -5": "--n-timesteps is -5",
        f"{TRAIN} -n many": "--n-timesteps is 'many'; it must be a whole number",
        f"{TRAIN} -n 1.5": "--n-timesteps is '1.5'; it must be a whole number",
        f"{TRAIN} --eval-episodes 0": "--eval-episodes is 0; it must be at least 1",
        f"{TRAIN} --n-eval-envs 0": "--n-eval-envs is 0",
        f"{TRAIN} --num-threads 0": "--num-threads is 0",
        f"{TRAIN} --device tpu": "--device is 'tpu'",
        f"{TRAIN} --device 7": "--device is",
        f"{TRAIN} --run-id 0": "--run-id is 0",
        f"{TRAIN} --run-id x": "--run-id",
        f"{TRAIN} --checkpoint-freq -1": "--checkpoint-freq is -1",
        f"{TRAIN} --seed x": "--seed",
        f"{TRAIN} --vec-env many": "--vec-env",
        f"{TRAIN} --nonsense 3": "unrecognized arguments: --nonsense",
        f"{TRAIN} --gym-packages nosuch": "--gym-packages nosuch: there is no such module",
        f"{TRAIN} -params batch_size:4 batch_size:8": "-params has `batch_size` twice; keep one",
        f"{TRAIN} --env-kwargs g:10 g:9": "--env-kwargs has `g` twice",
        f"{TRAIN} --eval-samplers bc_flow": "--eval-samplers needs evaluations, but --eval-freq is -1; it must be above 0",
        f"{TRAIN} -optimize --run-id 3": "--run-id does not go with -optimize: trials are not stored as runs",
        f"{TRAIN} -optimize --resume": "--resume does not go with -optimize",
        f"{TRAIN} -optimize --eval-samplers bc_flow": "--eval-samplers does not go with -optimize",
        f"{TRAIN} -optimize --checkpoint-freq 5": "--checkpoint-freq does not go with -optimize",
        f"{TRAIN} -i nothing.zip": "trained_agent must be a valid path",
        f"{TRAIN} --trial-id 3": "--trial-id needs the study",
        f"{TRAIN} --env-kwargs gg:10": "--env-kwargs: `env_kwargs` is .*unexpected keyword argument 'gg'$",
        f"{TRAIN} --env-kwargs gg": "--env-kwargs gg: expected NAME:VALUE",
        "train --algo fgl --env Pendulum-v1": "There is no algorithm 'fgl'; did you mean 'fql'",
        "train --algo fql --env Pendulumm-v1": "no environment 'Pendulumm-v1'; did you mean 'Pendulum-v1'",
        "train --algo fql --env NoRobot-v0": "no environment 'NoRobot-v0'.*Environments of other packages need",
        "train --algo fql --env CartPole-v1": "Box.*Discrete",
        "train --algo fql --env Pendulum-v1 --conf-file no.yml": "--conf-file no.yml does not exist",
        "train --algo td3_offline --env Pendulum-v1 -n 9 --eval-freq -1": "there is none: pass `dataset`",
        f"{STUDY} -i model.zip": "-i does not go with -optimize",
        f"{TRAIN} --study-name mine --storage logs/mine.log": "--study-name and --storage need --trial-id",
        f"{STUDY} --n-jobs 0": "--n-jobs is 0",
        f"{STUDY} --n-trials 0": "--n-trials is 0",
        f"{STUDY} --max-total-trials 0": "--max-total-trials is 0",
        f"{STUDY} --n-evaluations 0": "--n-evaluations is 0",
        f"{STUDY} --n-startup-trials -1": "--n-startup-trials is -1",
        f"{STUDY} --storage mine": "--storage is 'mine'; it must be a journal file",
        f"{STUDY} --storage none://x --study-name y": "database of --storage cannot be used|storage URL",
        f"{STUDY} --sampler best": "--sampler",
        f"{TRAIN} --log-folder c.yml": "c.yml",
        "datasets collect multirobot2d --robots 2 --scenes 1 --directory c.yml": "c.yml",
        "datasets collect pointmaze-medium-navigate-v0 --episodes 1 --directory c.yml": "c.yml",
        "export --algo fql --env Pendulum-v1": "logs",
        "export": "required",
        "export --algo fgl --env Pendulum-v1": "'fgl' cannot be exported; choose one of",
        "export --algo fql --env Pendulumm-v1": "did you mean 'Pendulum-v1'",
        "export --algo fql --env Pendulum-v1 --gym-packages nosuch": "there is no such module",
        "datasets collect NoRobot-v0 --policy x.zip --gym-packages nosuch": "there is no such module",
        "enjoy --algo fgl --env Pendulum-v1": "There is no algorithm 'fgl'; did you mean 'fql'",
        "enjoy --algo fql --env Pendulumm-v1": "did you mean 'Pendulum-v1'",
        "enjoy --algo fql --env Pendulum-v1": "The logs/fql folder was not found",
        "enjoy --algo fql --env Pendulum-v1 --deterministic --stochastic": "--deterministic and --stochastic exclude each",
        "enjoy --algo fql --env Pendulum-v1 -n 0": "--n-timesteps is 0",
        "enjoy --algo fql --env Pendulum-v1 --n-envs 0": "--n-envs is 0",
        "enjoy --algo fql --env Pendulum-v1 --gym-packages nosuch": "there is no such module",
        "record-video --algo fql --env Pendulum-v1": "The logs/fql folder was not found",
        "record-video --algo fql --env NoRobot-v0": "no environment 'NoRobot-v0'",
        "push-to-hub --algo fql --env Pendulum-v1 -orga me": "The logs/fql folder was not found",
        "plot": "plot needs --algos",
        "plot -a fql -e Pendulum-v1 -f nothing": "There is no folder nothing",
        "plot-from-file -i nothing.pkl": "If you trust its source, add --trusted",
        "plot-from-file -i nothing.pkl --trusted": "nothing.pkl",
        "report nothing": "has no run with evaluations",
        "report . --last x": "--last",
        "report table.csv": "table.csv",
        "sweep nothing.yml": "nothing.yml",
        "sweep s.yml --cpus-per-run x": "'x' is not a number",
        "sweep s.yml --cpus-per-run 0": "it must be above 0",
        "sweep s.yml --cpus-per-run nan": "'nan' is not a number",
        "sweep s.yml --max-retries -1": "--max-retries is -1",
        "datasets": "required: COMMAND",
        "datasets info nothing": "Cannot read 'nothing' as a dataset",
        "datasets info nothing.npz --env Pendulumm-v1": "Did you mean: `Pendulum`",
        "datasets info nothing.npz": "nothing.npz: there is no such file",
        "datasets info cube-single-plya-v0": "did you mean 'cube-single-play-v0'",
        "datasets collect nothing": "No scripted expert can collect 'nothing'",
        "datasets collect cube-single-play-v0 --transitions 0": "transitions is 0",
        "datasets collect cube-single-play-v0 --transitions x": "--transitions",
        "datasets collect cube-single-play-v0 --workers 0": "workers is 0",
        "datasets collect cube-single-play-v0 --seed -1": "seed is -1",
        "datasets collect cube-single-play-v0 --algo sac": "--algo goes with --policy",
        "datasets collect Pendulum-v1 --policy x.zip --algo sac --transitions 5": "--name NAMESPACE/NAME-v0",
        "datasets collect Pendulum-v1 --policy x.zip --transitions 5 --name me/arm-v0": "name it",
        "datasets collect Pendulum-v1 --policy x.zip --algo sacc --transitions 5 --name me/arm-v0": "no such model",
        "datasets collect Pendulum-v1 --policy x.zip --algo sac --transitions 5 --name me/arm-v0": "there is no such model",
        "datasets collect Pendulum-v1 --policy x.zip --algo sac --transitions 5 --name arm": "is no name for a Minari dataset",
        "datasets collect Pendulum-v1 --policy x.zip --algo sac --transitions 5 --name me/arm-v0 --workers 0": (
            "--workers does not go with --policy"
        ),
        "datasets collect Pendulum-v1 --policy x.zip --algo sac --transitions 5 --name me/arm-v0 --episodes 0": (
            "--episodes does not go with --policy"
        ),
        "datasets collect NoRobot-v0 --policy x.zip --algo sac --transitions 5 --name me/arm-v0": "NoRobot",
        "datasets collect multirobot2d --robots x": "neither a number",
        "datasets collect multirobot2d --robots 0": "`robots` is 0",
        "datasets collect multirobot2d --robots 2 --scenes 0": "scenes is 0",
        "datasets unpack nothing.npz folder": "nothing.npz: there is no such file",
        "datasets convert nothing.npz folder": "nothing.npz: there is no such file",
    }
    accepted = {
        f"{TRAIN} -n 1.2e1": {},
        f"{TRAIN} -n '12'": {},
        "datasets list": {},
        "--help": {},
        "train --help": {},
    }
    files = {"c.yml": entry(), "s.yml": table()}
    inputs = [
        Input(line or "no command", lambda folder, c=line: command(c, folder, files), text) for line, text in wrong.items()
    ]
    return inputs + [Input(line, lambda folder, c=line: command(c, folder, files), result=0) for line in accepted]


def entry(**changes: str) -> str:
    return "Pendulum-v1:\n" + "".join(f"  {key}: {value}\n" for key, value in {**ENTRY, **changes}.items() if value)


def table(**changes: str) -> str:
    return "".join(f"{key}: {value}\n" for key, value in {**SWEEP, **changes}.items() if value)


def of_configurations() -> list[Input]:
    wrong: dict[str, tuple[str, str]] = {
        "n_envs": ("0", "`n_envs` is 0; it must be at least 1"),
        "n_envs ": ("two", "`n_envs` is 'two'; it must be a whole number"),
        "n_timesteps": ("0", "`n_timesteps` is 0; it must be at least 1"),
        "n_timesteps ": ("many", "`n_timesteps` is 'many'"),
        "frame_stack": ("0", "`frame_stack` is 0"),
        "learning_rate": ("-1", "`learning_rate` is -1"),
        "learning_rate ": ("linear_3e-4", "`learning_rate` is 'linear_3e-4'.*lin_NUMBER"),
        "learning_rate  ": ("lin_x", "`learning_rate` is 'lin_x'"),
        "batch_size": ("0", "`batch_size` is 0"),
        "batch_size ": ("big", "`batch_size` is 'big'"),
        "tau": ("2", "`tau` is 2"),
        "train_freq": ("[1, year]", "`train_freq` is"),
        "policy": ("FlowPolice", "no policy 'FlowPolice'; did you mean 'FlowPolicy'"),
        "policy ": ("nosuch.Policy", "`policy` has 'nosuch.Policy'; there is no such class"),
        "policy_kwargs": ("3", "`policy_kwargs` is 3; it must be a dictionary"),
        "policy_kwargs ": ("{net_ark: [4]}", "no `policy_kwargs.net_ark`; did you mean `policy_kwargs.net_arch`"),
        "policy_kwargs  ": ("{net_arch: 4}", "`net_arch` is 4"),
        "batch_sise": ("4", "FQL has no argument `batch_sise`; did you mean `batch_size`"),
        "ent_coef": ("auto", "no argument `ent_coef`: flow policies have no entropy"),
        "normalize": ("{norm_obz: true}", "no `normalize.norm_obz`; did you mean `normalize.norm_obs`"),
        "monitor_kwargs": ("{x: 1}", "Monitor has no `monitor_kwargs.x`"),
        "env_wrapper": (
            "gymnasium.wrappers.Flatten",
            "`env_wrapper` has 'gymnasium.wrappers.Flatten'; there is no such class",
        ),
        "env_wrapper ": ("Flatten", "`env_wrapper` has 'Flatten'"),
        "callback": ("nosuch.Callback", "`callback` has 'nosuch.Callback'"),
        "noise_type": ("normal", "`noise_std` is missing"),
        "noise_std": ("0.1", "`noise_type` is missing"),
        "dataset": ("nothing.npz", "nothing.npz: there is no such file"),
        "dataset ": ("cube-single-plya-v0", "did you mean 'cube-single-play-v0'"),
        "env_kwargs": ("{gg: 10}", "unexpected keyword argument 'gg'"),
        **of_nested_values(),
    }
    inputs = [
        Input(
            f"{key.strip()}: {value}",
            lambda folder, k=key, v=value: command(TRAIN, folder, {"c.yml": entry(**{k.strip(): v})}),
            text,
        )
        for key, (value, text) in wrong.items()
    ]
    whole: dict[str, tuple[str, str]] = {
        "an empty file": ("", "c.yml has no entries"),
        "no YAML": ("Pendulum-v1: [1", "c.yml is not valid YAML"),
        "a list": ("[1, 2]", "c.yml has no entries"),
        "a setting twice": (entry() + "  policy: CnnPolicy\n", "c.yml, line 7: the key `policy` is duplicate; keep one"),
        "an environment twice": (entry() + entry(), "c.yml, line 7: the key `Pendulum-v1` is duplicate; keep one"),
        "an entry that is a number": ("Pendulum-v1: 3", "expected a dictionary of settings"),
        "no entry for the environment": ("Other-v0:\n  policy: FlowPolicy\n", "Hyperparameters not found"),
        "an alias to itself": (
            entry(policy_kwargs="&a {x: *a}"),
            "c.yml is not valid YAML: line 4: the value contains itself",
        ),
        "no policy": (entry(policy=""), "`policy` is missing"),
        "no number of timesteps": (entry(n_timesteps=""), "`n_timesteps` is missing"),
        "normalized frames": (entry(normalize="true", frame_stack="2"), "`normalize` and `frame_stack` do not go together"),
        "noise of an unknown type": (entry(noise_type="normall", noise_std="0.1"), "`noise_type` is 'normall'"),
        "an unknown part of observations": (
            entry(
                env_wrapper="{gymnasium.wrappers.TimeAwareObservation: {flatten: false}}", normalize="{norm_obs_keys: [arm]}"
            ),
            "c.yml, entry 'Pendulum-v1': `normalize` is .*observations have no part 'arm', only obs, time",
        ),
    }
    inputs += [
        Input(name, lambda folder, t=text: command(TRAIN, folder, {"c.yml": t}), message)
        for name, (text, message) in whole.items()
    ]
    given = {
        "batch_size": "-params batch_size: expected NAME:VALUE",
        "batch_size:": "expected NAME:VALUE",
        "batch_size:big": "-params: `batch_size` is 'big'",
        "train_freq:[1,episode]": "-params train_freq: '.1,episode.' is not a value .*Text in brackets needs quotes",
        "policy_kwargs:{net_arch:[4]}": "-params policy_kwargs: '{net_arch:.4.}' is not a value .*needs quotes",
        "batch_sise:3": "-params: FQL has no argument `batch_sise`",
        "policy_kwargs:3": "-params: `policy_kwargs` is 3",
        "n_envs:0": "-params: `n_envs` is 0",
        "env_wrapper:nosuch.Wrapper": "-params: `env_wrapper` has",
    }
    inputs += [
        Input(f"-params {value}", lambda folder, v=value: command(f"{TRAIN} -params {v}", folder, {"c.yml": entry()}), text)
        for value, text in given.items()
    ]
    right: dict[str, dict[str, str]] = {
        "n_timesteps: 1e1": {"n_timesteps": "1e1"},
        "learning_rate: 3e-4": {"learning_rate": "3e-4"},
        "learning_rate: lin_3e-4": {"learning_rate": "lin_3e-4"},
        "normalize: true": {"normalize": "true"},
        "monitor_kwargs: {reset_keywords: []}": {"monitor_kwargs": "{reset_keywords: []}"},
        "env_wrapper: 3e0": {"env_wrapper": "{gymnasium.wrappers.TimeLimit: {max_episode_steps: 3e0}}"},
    }
    return inputs + [
        Input(name, lambda folder, c=changes: command(TRAIN, folder, {"c.yml": entry(**c)}), result=0)
        for name, changes in right.items()
    ]


def of_nested_values() -> dict[str, tuple[str, str]]:
    """Values inside of a key. Spaces after a key tell inputs of the same key apart."""
    wrappers, vec, callbacks = ("gymnasium.wrappers", "stable_baselines3.common.vec_env", "stable_baselines3.common.callbacks")
    limit, checkpoint = f"{wrappers}.TimeLimit", f"{callbacks}.CheckpointCallback"
    given = {
        "monitor_kwargs": {
            "3": "`monitor_kwargs` is 3; it must be a dictionary",
            "{3: 4}": "`monitor_kwargs` has the name 3",
            "nothing": "`monitor_kwargs`: 'nothing' is not a value",
            "{info_keywords: success}": "`monitor_kwargs.info_keywords` is 'success'; it must be a list",
            "{override_existing: 'no'}": "`monitor_kwargs.override_existing` is 'no'; it must be True or False",
        },
        "normalize": {
            "3": "`normalize` is 3; it must be True, False or a dictionary",
            "'no'": "`normalize`: 'no' is not a value",
            "{norm_obs: 'False'}": "`normalize.norm_obs` is 'False'; it must be True or False",
            "'dict(norm_obs=3)'": "`normalize.norm_obs` is 3",
            "{clip_obs: x}": "`normalize.clip_obs` is 'x'; it must be a number",
            "{clip_reward: 0}": "`normalize.clip_reward` is 0; it must be at least",
            "{gamma: 2}": "`normalize.gamma` is 2; it must be in",
            "{norm_obs_keys: [arm]}": "c.yml, entry 'Pendulum-v1': `normalize` is .*`norm_obs_keys` param",
            "{gamma: 0.9}\n  gamma: 0.5": "`normalize.gamma` is 0.9, but RL Zoo uses `gamma`, which is 0.5",
        },
        "env_wrapper": {
            "[null]": "`env_wrapper` has None",
            "{}": "`env_wrapper` has {}; expected one class with its arguments",
            wrappers: "which is not a wrapper of Gymnasium",
            f"{vec}.VecMonitor": "which is not a wrapper of Gymnasium",
            "math.sin": "`env_wrapper` is 'math.sin': must be real number",
            f"{{{limit}: 3}}": "with 3; its arguments must be a dictionary",
            f"{{{limit}: {{max_episode_steps: x}}}}": "`max_episode_steps` is 'x'; it must be a whole number",
            f"{{{limit}: {{max_episode_steps: -1}}}}": "`env_wrapper` is .*Expect the `max_episode_steps` to be positive",
        },
        "vec_env_wrapper": {
            f"{wrappers}.FlattenObservation": "which is not a wrapper of vectorized environments",
            f"{{{vec}.VecFrameStack: {{n_stack: x}}}}": "`n_stack` is 'x'; it must be a whole number",
            f"{{{vec}.VecFrameStack: {{n_stack: 0}}}}": "`n_stack` is 0; it must be at least 1",
        },
        "callback": {
            "builtins.dict": "which is not a callback",
            f"{callbacks}.BaseCallback": "which is a base class",
            f"{{{checkpoint}: {{save_freq: 0, save_path: x}}}}": "`save_freq` is 0; it must be at least 1",
            f"{{{checkpoint}: {{save_freq: 1, save_path: 3}}}}": "`save_path` is 3; it must be a text",
            f"{{{callbacks}.EvalCallback: {{eval_env: Pendulum-v1}}}}": "`callback` is .*not a Gymnasium environment",
        },
        "env_kwargs": {
            "3": "`env_kwargs` is 3; it must be a dictionary",
            "{3: 4}": "`env_kwargs` has the name 3",
            "{g: 1e1}": "`env_kwargs.g` is '1e1'. YAML reads this as text: write 10.0",
            "{g: high}": "`env_kwargs.g` is 'high'; it must be a number",
            "{g: null}": "`env_kwargs.g` is None; it must be a number",
            "{render_mode: 3}": "`env_kwargs.render_mode` is 3",
            "{max_episode_steps: x}": "`env_kwargs` is .*Expect the `max_episode_steps` to be an integer",
        },
        "policy_kwargs": {
            "{optimizer_kwargs: {eps: 1e-5}}": "`optimizer_kwargs`: `eps` is '1e-5'. YAML reads this as text",
            "{optimizer_kwargs: {betas: x}}": "`optimizer_kwargs` is {'betas': 'x'}, which Adam refuses",
        },
        "learning_rate": {
            "lin_1e-3_5": "`learning_rate` is 'lin_1e-3_5'.*lin_NUMBER",
            "lin_inf": "`learning_rate` is 'lin_inf'",
        },
        "action_noise": {"0.1": "`action_noise` is 0.1; it must be an `ActionNoise`"},
    }
    inputs = [(key, value, text) for key, values in given.items() for value, text in values.items()]
    return {f"{key}{' ' * (10 + i)}": (value, text) for i, (key, value, text) in enumerate(inputs)}


def of_other_algorithms() -> list[Input]:
    """RL Zoo's own algorithms."""
    line = "train --algo sac --env Pendulum-v1 --conf-file c.yml --eval-freq -1"
    wrong = {
        "policy: FlowPolicy": "SAC has no policy 'FlowPolicy'; did you mean 'MlpPolicy'",
        "policy: 3": "`policy` is 3; it must be a text",
        "learning_rate: lin_abc": "`learning_rate` is 'lin_abc'.*lin_NUMBER",
        "learning_rate: -1": "`learning_rate` is -1; it must be at least 0",
        "policy_kwargs: {net_ark: [3]}": "no `policy_kwargs.net_ark`; did you mean `policy_kwargs.net_arch`",
        "batch_size: big": "c.yml, entry 'Pendulum-v1': `batch_size` is 'big'; it must be a whole number",
        "batch_size: 0": "`batch_size` is 0; it must be at least 1",
        "batch_sise: 4": "SAC has no `batch_sise`; did you mean `batch_size`",
        "tau: x": "`tau` is 'x'; it must be a number",
        "use_sde: maybe": "`use_sde` is 'maybe'; it must be True or False",
        "normalize: {norm_obs: 'no'}": "`normalize.norm_obs` is 'no'",
        "seed: 3": "`seed` is an option of the command",
    }
    right = ["buffer_size: 1e4", "batch_size: '4'", "learning_rate: lin_1e-3", "train_freq: [1, step]", "ent_coef: auto"]

    def give(folder: Path, change: str) -> int:
        key, _, value = change.partition(": ")
        text = entry(**{"policy": "MlpPolicy", "policy_kwargs": "dict(net_arch=[4])", key: value})
        return command(line, folder, {"c.yml": text})

    inputs = [Input(f"sac: {change}", lambda folder, c=change: give(folder, c), text) for change, text in wrong.items()]
    return inputs + [Input(f"sac: {change}", lambda folder, c=change: give(folder, c), result=0) for change in right]


def of_sweeps() -> list[Input]:
    wrong: dict[str, tuple[dict[str, str], str]] = {
        "no seeds": ({"seeds": "0"}, "there are no runs"),
        "seeds: -1": ({"seeds": "-1"}, "`seeds` is -1"),
        "an unknown task": ({"tasks": "[Pendulm-v1]"}, "`Pendulm-v1`; did you mean `Pendulum-v1`"),
        "an unknown algorithm": ({"algorithms": "[fgl]"}, "unknown algorithm `fgl`; did you mean `fql`"),
        "a number that YAML reads as text": ({"n_timesteps": "1e6"}, "YAML reads this as text"),
        "n_timesteps: 0": ({"n_timesteps": "0"}, "`n_timesteps` is 0"),
        "eval_episodes: 0": ({"eval_episodes": "0"}, "`eval_episodes` is 0"),
        "a hyperparameter as text": ({"alpha": "high"}, "s.yml: `alpha` is 'high'; it must be a number"),
        "batch_size: 0": ({"batch_size": "0"}, "s.yml: `batch_size` is 0; it must be at least 1"),
        "an unknown key": ({"alhpa": "1.0"}, "`alhpa`"),
        "no output": ({"output": ""}, "`output` is missing"),
        "cpus: 0": ({"cpus": "0"}, "`cpus` is 0"),
        "a seed as the number of seeds": ({"seeds": "20261130"}, r"a single seed is \[20261130\]"),
        "a seed that is too large": ({"seeds": "[99999999999]"}, "`seeds` is"),
        "vec_env: many": ({"vec_env": "many"}, "`vec_env` is 'many'; expected one of: dummy, subproc"),
        "a setting without a name": ({"settings": "{'': {}}"}, "must be a valid folder name"),
        "a name of an argument with a colon": ({"env_kwargs": "{'a:b': 3}"}, "`env_kwargs` has the name 'a:b'"),
        "a package that is a path": ({"packages": "['..']"}, "packages: `..` cannot be imported"),
        "normalize: 3": ({"normalize": "3"}, "s.yml: `normalize` is 3"),
        "policy_kwargs: {net_ark: [4]}": (
            {"policy_kwargs": "{net_ark: [4]}"},
            "s.yml: FlowPolicy of FQL has no `policy_kwargs.net_ark`; did you mean `policy_kwargs.net_arch`",
        ),
        "device: gpu": ({"device": "gpu"}, "s.yml: `device` is 'gpu'; expected auto, cpu, cuda"),
        "noise of an unknown type": ({"noise_type": "normall", "noise_std": "0.1"}, "s.yml: `noise_type` is 'normall'"),
        "a configuration that does not exist": ({"conf_file": "nosuch"}, "s.yml: --conf-file nosuch does not exist"),
        "an argument of the environment as text": ({"env_kwargs": "{g: high}"}, "s.yml: `env_kwargs.g` is 'high'"),
        "a hyperparameter of sac as text": (
            {"algorithms": "[sac]", "tau": "high"},
            "s.yml: `tau` is 'high'; it must be a number",
        ),
        "a wrapper that does not exist": ({"env_wrapper": "nosuch.Wrapper"}, "s.yml: `env_wrapper` has 'nosuch.Wrapper'"),
    }
    inputs = [
        Input(
            f"sweep: {name}",
            lambda folder, c=changes: command("sweep s.yml --dry-run", folder, {"s.yml": table(**c)}),
            message,
        )
        for name, (changes, message) in wrong.items()
    ]
    whole: dict[str, tuple[str, str]] = {
        "an empty file": ("", "a sweep is a mapping"),
        "no YAML": ("a: [", "s.yml"),
        "an alias to itself": (table(tasks="&a [*a]"), "s.yml is not valid YAML: line 3: the value contains itself"),
    }
    inputs += [
        Input(f"sweep: {name}", lambda folder, t=text: command("sweep s.yml", folder, {"s.yml": t}), message)
        for name, (text, message) in whole.items()
    ]
    run = lambda folder: command("sweep s.yml --dry-run", folder, {"s.yml": table()})  # noqa: E731
    tuples = table(algorithms="[sac]", train_freq="[1, step]")
    return [
        *inputs,
        Input("sweep: a table", run, result=0),
        Input(
            "sweep: train_freq of sac", lambda folder: command("sweep s.yml --dry-run", folder, {"s.yml": tuples}), result=0
        ),
    ]


INPUTS: list[Any] = of_options() + of_configurations() + of_other_algorithms() + of_sweeps()
