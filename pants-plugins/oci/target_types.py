from typing import ClassVar, Optional, Tuple

from pants.core.goals.package import OutputPathField
from pants.core.util_rules.environments import EnvironmentField
from pants.engine.addresses import Address
from pants.engine.target import (
    COMMON_TARGET_FIELDS,
    BoolField,
    Dependencies,
    DictStringToStringField,
    InvalidFieldTypeException,
    MultipleSourcesField,
    SpecialCasedDependencies,
    StringField,
    StringSequenceField,
    Target,
)
from pants.util.strutil import help_text

from oci.util_rules.platform import PLATFORMS


class DebianLockField(StringField):
    alias = "lock"
    required = True
    help = "Path from the build root to the lock of the suite's packages, made by `make lock`."


class DebianSetField(StringField):
    alias = "set"
    required = True
    help = "The set of the lock's packages that this layer holds."


class DebianBaseField(StringSequenceField):
    alias = "base"
    default = ()
    help = "The sets of the same lock that layers below this one hold."


class OmitField(StringSequenceField):
    alias = "omit"
    default: ClassVar[Tuple[str, ...]] = ()
    help = help_text("""
        Patterns of paths in the packages to leave out, such as `usr/share/man`.

        A pattern also covers what is below a folder; a later `!pattern` takes paths back in.
        """)


class SymlinksField(DictStringToStringField):
    alias = "symlinks"
    help = "Symlinks to add: path in the image to target."


class DebianLayer(Target):
    alias = "debian_layer"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        DebianLockField,
        DebianSetField,
        DebianBaseField,
        OmitField,
        SymlinksField,
        EnvironmentField,
    )
    help = help_text("""
        A layer of Debian packages.

        Maintainer scripts never run; `oci/tool/maintainer_scripts.py` does what an image needs of them.
        """)


class OptionalPythonVersionField(StringField):
    alias = "version"
    help = "The interpreter's minor version, such as `3.11`."


class PythonVersionField(OptionalPythonVersionField):
    required = True


class SitePackagesField(StringField):
    alias = "site_packages"
    required = True
    help = "The folder in the image, absolute, where this interpreter looks for installed packages."


class DebianPythonInterpreter(Target):
    alias = "debian_python_interpreter"
    core_fields = (*DebianLayer.core_fields, PythonVersionField, SitePackagesField)
    help = "A layer that holds a Python interpreter, from Debian's packages, and nothing but it."


class CpythonLockField(StringField):
    alias = "lock"
    default = "3rdparty/cpython/cpython.lock"
    help = "Path from the build root to the lock of the interpreters' archives."


class BelowField(SpecialCasedDependencies):
    alias = "base"
    required = True
    help = help_text("""
        The layers below this one in every image, the lowest first.

        What they have of the libraries that the interpreter needs is not added again.
        """)


class StandaloneOmitField(OmitField):
    default = tuple(
        f"usr/local/lib/python3.*/{path}"
        for path in (
            # For building extensions, and for installing pip.
            *("config-3.*", "ensurepip", "EXTERNALLY-MANAGED"),
            # Tests, and modules for them.
            *("test", "tests", "lib-dynload/_test*", "lib-dynload/_ctypes_test.*"),
            *("lib-dynload/_xxtestfuzz.*", "lib-dynload/xx*"),
            # Graphics, which have no libraries in an image.
            *("idlelib", "tkinter", "turtle*", "lib-dynload/_tkinter.*"),
            # Deprecated by Python, and the only ones to need libraries that archives do not bring.
            *("lib-dynload/nis.*", "lib-dynload/_crypt.*"),
            # Texts of the interactive help, and Windows programs.
            *("pydoc_data", "distutils/command/*.exe"),
            # The build machine's own hooks.
            *("sitecustomize.py", "usercustomize.py"),
        )
    )


class StandalonePythonInterpreter(Target):
    alias = "standalone_python_interpreter"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        CpythonLockField,
        PythonVersionField,
        BelowField,
        StandaloneOmitField,
        EnvironmentField,
    )
    help = help_text("""
        A layer that holds a Python interpreter below /usr/local, and nothing but it.

        It comes from an archive of python-build-standalone, which the lock pins, or else is the
        build machine's own (`--oci-interpreter-source`); such an image is labelled
        `oci.interpreter`, and is not the same on another machine.
        """)


class OneDependency(SpecialCasedDependencies):
    """The address of one target, written as a string and not as a list of one."""

    @classmethod
    def compute_value(
        cls, raw_value: Optional[str], address: Address  # type: ignore[override]
    ) -> Optional[Tuple[str, ...]]:
        if raw_value is not None and not isinstance(raw_value, str):
            raise InvalidFieldTypeException(
                address, cls.alias, raw_value, expected_type="an address"
            )
        return super().compute_value(None if raw_value is None else (raw_value,), address)


class InterpreterField(OneDependency):
    alias = "interpreter"
    required = True
    help = "The target of the interpreter that the packages are for."


class RequirementsField(StringField):
    alias = "requirements"
    required = True
    help = (
        "Path from the build root to the hash-pinned requirements file whose packages to install."
    )


class PackagesOmitField(OmitField):
    help = help_text("""
        Patterns of paths in `site_packages` to leave out, such as `*/tests` or `torch/include`.

        A pattern also covers what is below a folder, and `*` any number of folders; a later
        `!pattern` takes paths back in. Files are left out before modules are compiled.
        """)


class StripField(BoolField):
    alias = "strip"
    default = True
    help = help_text("""
        Whether libraries lose what nothing reads on a machine without a GPU: symbol tables,
        debugging information and code for GPUs. What a licence forbids to modify is left alone.
        """)


class FromCpuIndexField(StringSequenceField):
    alias = "from_cpu_index"
    default = ()
    help = help_text("""
        Packages of this layer to take from the index of builds for machines without GPUs, if
        `--oci-cpu-index` names one, in the version that is required.
        """)


class OnlyForGpusField(BoolField):
    alias = "only_for_gpus"
    default = False
    help = "Whether images do without this layer if `--oci-cpu-index` is given."


class OptionalLibrariesField(StringSequenceField):
    alias = "optional_libraries"
    default = ()
    help = help_text("""
        Sonames of shared libraries that some of the packages' files link to and no layer has.

        An image is not built with any other library missing. Name one here only if nobody imports
        the files that need it.
        """)


class PythonPackagesLayer(Target):
    alias = "python_packages_layer"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        InterpreterField,
        RequirementsField,
        PackagesOmitField,
        StripField,
        FromCpuIndexField,
        OnlyForGpusField,
        OptionalLibrariesField,
        EnvironmentField,
    )
    help = help_text("""
        A layer of third-party Python packages, installed by uv from wheels alone, hash-checked.

        They lie compiled in the interpreter's `site_packages`, where it finds them by itself.
        """)


class SourcesLayerDependencies(Dependencies):
    required = True
    help = (
        "The Python targets whose modules to hold, with all that they depend on in this repository."
    )


class PythonSourcesLayer(Target):
    alias = "python_sources_layer"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        InterpreterField,
        SourcesLayerDependencies,
        EnvironmentField,
    )
    help = "A layer of this repository's own Python modules, compiled, in the interpreter's `site_packages`."


class LayersField(SpecialCasedDependencies):
    alias = "layers"
    required = True
    help = "The layers of the image, the lowest first."


class RepositoryField(StringField):
    alias = "repository"
    required = True
    help = "The image's name, without a tag."


class TagField(StringField):
    alias = "image_tag"
    default = "latest"
    help = "The tag that `docker load` gives to the image."


class PlatformsField(StringSequenceField):
    alias = "platforms"
    default = ("linux/amd64",)
    valid_choices = tuple(PLATFORMS)
    help = "The platforms that the image is for. `package` of several writes one image index."


class EntrypointField(StringSequenceField):
    alias = "entrypoint"
    required = True
    help = "The command that the image runs; arguments of `docker run` are added to it."


class EnvField(DictStringToStringField):
    alias = "env"
    help = "Environment variables that are set in the image."


class LabelsField(DictStringToStringField):
    alias = "labels"
    help = "Labels of the image."


class SkipPushField(BoolField):
    alias = "skip_push"
    default = False
    help = "Whether `publish` leaves this image out."


class ImageTestsField(MultipleSourcesField):
    alias = "tests"
    default = ()
    expected_file_extensions = (".yaml", ".yml")
    help = help_text("""
        YAML files that say what the image is expected to be; `test` checks it. docs/images.md describes
        them.
        """)


class ImageTestValuesField(DictStringToStringField):
    alias = "test_values"
    help = "What to put in the places of `${name}` in the `tests`: name to text."


class ImageTestDependenciesField(SpecialCasedDependencies):
    alias = "test_dependencies"
    help = help_text("""
        Addresses of files that commands of the `tests` find in their working directory, generated
        files included.
        """)


class OciImage(Target):
    alias = "oci_image"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        LayersField,
        RepositoryField,
        TagField,
        PlatformsField,
        EntrypointField,
        EnvField,
        LabelsField,
        SkipPushField,
        ImageTestsField,
        ImageTestValuesField,
        ImageTestDependenciesField,
        OutputPathField,
        EnvironmentField,
    )
    help = help_text("""
        A container image, the same bytes on every machine.

        `package` writes `image.tar`, an OCI layout that `docker load` takes as well, and `image.json`,
        its digests and the pins it was made from. `run` runs it, `test` checks it, `publish` pushes it.
        """)
