"""Former names of arguments and attributes: they work, and warn."""

import pytest
from conformance.scenes import plans, scenes

from sb3_flow import FlowOpt
from sb3_flow.common.arguments import policy_arguments
from sb3_flow.common.renamed import FormerName, renamed_arguments
from sb3_flow.methods import SMALL_PLANS
from sb3_flow.zoo.configs import check_entry


@renamed_arguments(colour="color")
def paint(color: str = "red", width: int = 1) -> tuple[str, int]:
    return color, width


class Line:
    size = FormerName("width")

    def __init__(self) -> None:
        self.width = 1


def test_a_former_argument_is_passed_on_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="`colour` is deprecated; use `color`") as record:
        assert paint(colour="blue", width=2) == ("blue", 2)
    assert record[0].filename == __file__
    with pytest.raises(TypeError, match="`colour` is the former name of `color`; pass only `color`"):
        paint(colour="blue", color="red")


def test_a_former_attribute_reads_and_writes_the_new_one() -> None:
    line = Line()
    with pytest.warns(DeprecationWarning, match="`size` is deprecated; use `width`"):
        line.size = 3
    with pytest.warns(DeprecationWarning) as record:
        assert line.size == line.width == 3
    assert record[0].filename == __file__


def test_the_former_names_of_flow_opt() -> None:
    former = {"initialiser_width": 8, "initialiser_depth": 2, "initialise": False, "filter_kwargs": {"majorisation": 3.0}}
    kwargs = {"width": 8, "depth": 1, "attention_heads": 2, **former}
    settings = {name: value for name, value in SMALL_PLANS.items() if name not in ("initializer_batch_size", "policy_kwargs")}
    with pytest.warns(DeprecationWarning) as record:
        model = FlowOpt("FlowPolicy", scenes(), dataset=plans(), initialiser_batch_size=5, policy_kwargs=kwargs, **settings)
    assert {str(warning.message).split("`")[1] for warning in record} >= {"initialiser_batch_size", *former} - {
        "filter_kwargs"
    }
    policy = model.policy
    assert (model.initializer_batch_size, policy.initialize, policy.filter.settings.majorization) == (5, False, 3.0)
    assert policy.initializer.point.out_features == 8 and len(policy.initializer.blocks) == 2
    with pytest.warns(DeprecationWarning, match="`initialiser_batch_size`"):
        assert model.initialiser_batch_size == 5
    with pytest.warns(DeprecationWarning, match="`to_metres`"):
        assert policy.to_metres is not None


def test_configurations_may_have_former_names() -> None:
    entry = {"policy": "FlowPolicy", "n_timesteps": 10, "initialiser_batch_size": "5"}
    assert check_entry(entry, FlowOpt, lambda key: key)["initialiser_batch_size"] == 5
    known = policy_arguments(FlowOpt, "FlowPolicy")
    assert known is not None and {"initialiser_width", "initializer_width"} <= known
