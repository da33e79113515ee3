"""Opening ONNX files: what is wrong with a file or with its sizes is said in one line, never by a traceback."""

import random
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

import hwsim  # noqa: E402
from hwsim.errors import GraphError, HwsimError, UnknownNameError, UnsupportedOpError  # noqa: E402
from hwsim.graph import Kind, Role  # noqa: E402

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def info(name: str, shape: list | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, *shape: int, kind: int = FLOAT, external: str = "") -> onnx.TensorProto:
    """A tensor without its data: nobody may look."""
    tensor = TensorProto(name=name, dims=shape, data_type=kind)
    if external:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=external)
    return tensor


def saved(path: Path, nodes: list, inputs: list, outputs: list, constants: list = (), functions: list = ()) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    imports = [helper.make_opsetid("", 22), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=functions)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    """y = x W with x [batch, past + new, ?] and W [64, 32] in an external file that is not there."""
    return saved(
        tmp_path / "linear.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="proj")],
        [info("x", ["batch", "past + new", None]), info("m", ["batch", "past", "new"])],
        [info("y", None)],
        [weight("w", 64, 32, external="absent.bin")],
    )


SIZES = {"batch": 2, "past": 5, "new": 3, "x.2": 64}


def test_sizes_are_bound_and_sums_of_names_computed(linear: Path) -> None:
    graph = hwsim.load_onnx(linear, SIZES)
    assert graph.tensors["x"].shape == (2, 8, 64)
    assert graph.tensors["y"].shape == (2, 8, 32)
    assert graph.matmul_flops == 2 * 16 * 64 * 32
    assert graph.parameters == 64 * 32
    assert graph.ops[0].source == "onnx::MatMul" and graph.ops[0].path == "proj"
    assert [graph.tensors[name].role for name in "xwy"] == [Role.INPUT, Role.WEIGHT, Role.OUTPUT]


def test_a_sum_can_be_given_as_a_whole(linear: Path) -> None:
    assert hwsim.load_onnx(linear, {**SIZES, "past + new": 11}).tensors["x"].shape == (2, 11, 64)


def test_all_missing_sizes_are_listed(linear: Path) -> None:
    with pytest.raises(GraphError) as error:
        hwsim.load_onnx(linear, {"batch": 2})
    text = str(error.value)
    for part in ("past + new (of x)", "x.2 (of x)", "past (of m)", "new (of m)"):
        assert part in text
    assert "batch" not in text and "\n" not in text and text.startswith(str(linear))


def test_a_wrong_name_gets_the_nearest(linear: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown dimension 'bacth'; did you mean 'batch'"):
        hwsim.load_onnx(linear, {**SIZES, "bacth": 2})


def test_a_file_without_free_sizes_says_so(tmp_path: Path) -> None:
    path = saved(tmp_path / "n.onnx", [helper.make_node("Relu", ["x"], ["y"])], [info("x", [2, 3])], [info("y", None)])
    with pytest.raises(GraphError, match="all sizes are fixed: there is no 'batch' to give"):
        hwsim.load_onnx(path, {"batch": 2})


@pytest.mark.parametrize("size", [0, -1, 2**41, 2.5, True, "8"])
def test_impossible_sizes_are_refused(linear: Path, size: object) -> None:
    with pytest.raises(GraphError, match=r"dims\.batch: got .*, expected an integer from 1 to 2\*\*40"):
        hwsim.load_onnx(linear, {**SIZES, "batch": size})  # type: ignore[dict-item]


def test_a_tensor_beyond_reason_is_refused(linear: Path) -> None:
    with pytest.raises(GraphError, match=r"more than 2\*\*60 elements"):
        hwsim.load_onnx(linear, {**SIZES, "batch": 2**40, "past": 2**39})


@pytest.mark.parametrize("name", ["batch * 2", "batch-size", "2*(batch+1) // 3", "max(batch, 2)", "__import__('os')"])
def test_names_are_read_not_run(tmp_path: Path, name: str) -> None:
    """Only sums and products of names that are sizes themselves are computed; anything else is a name."""
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = saved(tmp_path / "n.onnx", nodes, [info("x", ["batch", name])], [info("y", None)])
    computed = {"batch * 2": 8, "2*(batch+1) // 3": 3}.get(name)
    if computed:
        assert hwsim.load_onnx(path, {"batch": 4}).tensors["y"].shape == (4, computed)
    else:
        with pytest.raises(GraphError, match="sizes without a value"):
            hwsim.load_onnx(path, {"batch": 4})
        assert hwsim.load_onnx(path, {"batch": 4, name: 7}).tensors["y"].shape == (4, 7)


def test_elements_of_an_integer_input_can_be_given(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Expand", ["x", "sizes"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["y"], name="act"),
    ]
    path = saved(tmp_path / "e.onnx", nodes, [info("x", [1, 3]), info("sizes", [2], INT64)], [info("y", None)])
    with pytest.raises(UnsupportedOpError, match=r"node 'act' \(op Relu, domain ai.onnx\) needs the shape of 'wide'"):
        hwsim.load_onnx(path)
    assert hwsim.load_onnx(path, {"sizes[0]": 5, "sizes[1]": 3}).tensors["y"].shape == (5, 3)
    with pytest.raises(UnknownNameError, match=r"did you mean 'sizes\[\d\]'"):
        hwsim.load_onnx(path, {"sizes[7]": 5})


def test_files_that_are_none(tmp_path: Path) -> None:
    cases = {
        "absent.onnx": "no such file",
        "folder.onnx": "is a directory",
        "empty.onnx": "no ONNX model",
        "text.onnx": "no ONNX model",
    }
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_text("import this")
    for name, expected in cases.items():
        with pytest.raises(GraphError, match=expected) as error:
            hwsim.load_onnx(tmp_path / name)
        assert error.value.exit_code == 2 and "\n" not in str(error.value) and name in str(error.value)


def test_an_input_without_rank_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "r.onnx", [helper.make_node("Relu", ["x"], ["y"])], [info("x", None)], [info("y", None)])
    with pytest.raises(GraphError, match="input 'x' states no shape"):
        hwsim.load_onnx(path)


def test_an_unknown_operator_is_listed(tmp_path: Path) -> None:
    """With a stated shape the graph goes on behind it; without one the next rule says who is to blame."""
    nodes = [
        helper.make_node("Magic", ["x"], ["t"], domain="mine", name="m"),
        helper.make_node("Relu", ["t"], ["y"], name="r"),
    ]
    inputs, outputs = [info("x", [4, 8])], [info("y", [4, 8])]
    path = saved(tmp_path / "u.onnx", nodes, inputs, outputs)
    with pytest.raises(
        UnsupportedOpError, match=r"node 'r' .* which node 'm' \(op Magic, domain mine\) leaves unknown"
    ):
        hwsim.load_onnx(path)
    model = onnx.load(path)
    model.graph.value_info.append(info("t", [4, 8]))
    onnx.save(model, path)
    graph = hwsim.load_onnx(path)
    assert graph.unmodelled == ("mine::Magic",)
    assert [op.kind for op in graph.ops] == [Kind.UNKNOWN, Kind.ELEMENTWISE]
    assert graph.to_frame()["read_bytes"].sum() == 2 * 4 * 8 * 4


def test_an_unknown_last_operator_without_shape_is_listed(tmp_path: Path) -> None:
    nodes = [helper.make_node("Magic", ["x"], ["y"], domain="mine")]
    graph = hwsim.load_onnx(saved(tmp_path / "v.onnx", nodes, [info("x", [4, 8])], [info("y", None)]))
    assert graph.unmodelled == ("mine::Magic",) and "y" not in graph.tensors


def loop() -> onnx.NodeProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["a"], ["b"])], "body",
        [info("i", [], INT64), info("c", [], TensorProto.BOOL), info("a", [2])],
        [info("d", [], TensorProto.BOOL), info("b", [2])],
    )  # fmt: skip
    return helper.make_node("Loop", ["n", "", "x"], ["y"], body=body, name="steps")


def test_loops_are_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "l.onnx", [loop()], [info("x", [2]), info("n", [], INT64)], [info("y", [2])])
    with pytest.raises(UnsupportedOpError, match=r"node 'steps' \(op Loop, domain ai.onnx\)"):
        hwsim.load_onnx(path)


def test_a_branch_with_a_known_condition_is_taken(tmp_path: Path) -> None:
    """The rank of x is known, so is the branch; the other one never enters."""
    wide = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["t"])], "t", [], [info("t", None)])
    other = helper.make_graph([helper.make_node("Relu", ["x"], ["e"])], "e", [], [info("e", None)])
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Size", ["s"], ["rank"]),
        helper.make_node("Constant", [], ["two"], value_int=2), helper.make_node("Equal", ["rank", "two"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=wide, else_branch=other),
    ]  # fmt: skip
    path = saved(tmp_path / "i.onnx", nodes, [info("x", [3, 4])], [info("y", None)], [weight("w", 4, 5)])
    graph = hwsim.load_onnx(path)
    assert graph.tensors["y"].shape == (3, 5)
    assert [op.kind for op in graph.ops] == [Kind.MATMUL, Kind.VIEW]


def test_a_branch_on_data_is_refused(tmp_path: Path) -> None:
    body = helper.make_graph([helper.make_node("Identity", ["x"], ["t"])], "t", [], [info("t", [2])])
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body, name="gate")
    path = saved(tmp_path / "d.onnx", [node], [info("x", [2]), info("c", [], TensorProto.BOOL)], [info("y", [2])])
    with pytest.raises(UnsupportedOpError, match=r"node 'gate' .* the condition 'c' depends on data"):
        hwsim.load_onnx(path)


def test_model_functions_are_written_out(tmp_path: Path) -> None:
    function = helper.make_function(
        "mine", "Twice", ["a"], ["b"],
        [helper.make_node("Relu", ["a"], ["t"]), helper.make_node("MatMul", ["t", "t"], ["b"])],
        [helper.make_opsetid("", 22)],
    )  # fmt: skip
    nodes = [helper.make_node("Twice", ["x"], ["y"], domain="mine")]
    path = saved(tmp_path / "f.onnx", nodes, [info("x", [4, 4])], [info("y", None)], functions=[function])
    assert [op.source for op in hwsim.load_onnx(path).ops] == ["onnx::Relu", "onnx::MatMul"]


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Again", ["a"], ["b"], domain="mine")]
    function = helper.make_function(
        "mine", "Again", ["a"], ["b"], nodes, [helper.make_opsetid("", 22), helper.make_opsetid("mine", 1)]
    )
    call = [helper.make_node("Again", ["x"], ["y"], domain="mine")]
    path = saved(tmp_path / "c.onnx", call, [info("x", [4])], [info("y", None)], functions=[function])
    with pytest.raises(GraphError, match="function 'Again' calls itself"):
        hwsim.load_onnx(path)


def test_sequences_are_refused_by_name(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("xs", FLOAT, None)
    path = saved(
        tmp_path / "s.onnx", [helper.make_node("SequenceLength", ["xs"], ["y"])], [sequence], [info("y", [], INT64)]
    )
    with pytest.raises(UnsupportedOpError, match="'xs' is of sequence type"):
        hwsim.load_onnx(path)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_never_raise_anything_else(tmp_path: Path, seed: int, linear: Path) -> None:
    """Truncated and with flipped bits; whatever still loads can be counted."""
    chance = random.Random(seed)
    sources = [
        linear.read_bytes(),
        *((LIGHT / f"light_{name}.onnx").read_bytes() for name in ("bvlc_alexnet", "zfnet512")),
    ]
    path, refused = tmp_path / "damaged.onnx", 0
    for _ in range(150):
        data = bytearray(chance.choice(sources))
        if chance.random() < 0.2:
            data = data[: chance.randrange(len(data))]
        for _ in range(chance.choice((0, 1, 1, 2, 5))):
            if data:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            graph = hwsim.load_onnx(path, SIZES if b"past" in data else None)
            assert graph.flops >= 0
        except HwsimError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


@pytest.mark.parametrize("version", [0, -1, 2**31])
def test_impossible_operator_sets_are_refused(tmp_path: Path, version: int) -> None:
    path = saved(tmp_path / "o.onnx", [helper.make_node("Relu", ["x"], ["y"])], [info("x", [4])], [info("y", None)])
    model = onnx.load(path)
    model.opset_import[0].version = version
    onnx.save(model, path)
    with pytest.raises(GraphError, match=f"imports version {version} of the operators 'ai.onnx'"):
        hwsim.load_onnx(path)


def test_a_shape_of_endless_rank_is_not_inferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Integers without number that may be a shape: onnx would give its result as many axes."""
    nodes = [helper.make_node("Expand", ["x", "sizes"], ["wide"]), helper.make_node("Relu", ["wide"], ["y"])]
    inputs = [info("x", [1]), info("sizes", [2**40], INT64)]
    path = saved(tmp_path / "h.onnx", nodes, inputs, [info("y", None)])
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", lambda *_, **__: pytest.fail("onnx was asked"))
    with pytest.raises(UnsupportedOpError, match="needs the shape of 'wide'"):
        hwsim.load_onnx(path)


def test_an_input_of_which_nothing_is_known_does_not_hold_strings(tmp_path: Path) -> None:
    """The rule asks for the format of the unknown operand alone."""
    nodes = [
        helper.make_node("Magic", ["x"], ["t"], domain="mine", name="m"),
        helper.make_node("CastLike", ["x", "t"], ["y"], name="r"),
    ]
    path = saved(tmp_path / "k.onnx", nodes, [info("x", [4, 8])], [info("y", None)])
    with pytest.raises(UnsupportedOpError, match=r"node 'r' .* leaves unknown"):
        hwsim.load_onnx(path)
