"""proto/ has every service, method, field and number of the tables, and nothing else below number 100."""

import re
import tempfile
import unittest
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

HERE = Path(__file__).parent
PROTO = HERE.parents[1] / "proto"
# The tables of the application API have this message under another name, and its field too: on the
# wire it is the same.
RENAMED = {"atomix.runtime.v1.PrimitiveID": "atomix.runtime.v1.PrimitiveId"}
FIRST_ADDITION = 100
Field = descriptor_pb2.FieldDescriptorProto


def compiled():
    """All of proto/ as plain facts: methods, fields and enum values by full name."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "all"
        files = [str(file) for file in sorted(PROTO.rglob("*.proto"))]
        include = str(Path(protoc.__file__).parent / "_proto")
        arguments = ["protoc", f"-I{PROTO}", f"-I{include}", f"--descriptor_set_out={output}"]
        assert protoc.main([*arguments, *files]) == 0
        descriptors = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())
    methods, fields, values = {}, {}, {}

    def add(scope, message):
        name = f"{scope}.{message.name}"
        maps = {f".{name}.{one.name}": one for one in message.nested_type if one.options.map_entry}
        fields[name] = {field.number: (field.name, type_of(field, maps)) for field in message.field}
        for nested in message.nested_type:
            add(name, nested)
        for enum in message.enum_type:
            values[f"{name}.{enum.name}"] = {value.number: value.name for value in enum.value}

    for file in descriptors.file:
        for message in file.message_type:
            add(file.package, message)
        for service in file.service:
            for method in service.method:
                methods[f"{file.package}.{service.name}/{method.name}"] = (
                    method.client_streaming,
                    method.input_type[1:],
                    method.server_streaming,
                    method.output_type[1:],
                )
    return methods, fields, values


def type_of(field, maps):
    entry = maps.get(field.type_name)
    if entry:
        key, value = (type_of(one, {}) for one in entry.field)
        return f"map<{key}, {value}>"
    name = field.type_name[1:] or Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"repeated {name}" if field.label == Field.LABEL_REPEATED else name


class Tables(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.methods, cls.fields, cls.values = compiled()

    def resolve(self, scope, name):
        """The full name of a type that a table names, looked up from the inside outwards."""
        simple = name.split(".")[-1]
        if name.startswith("google.") or (name.islower() and "." not in name):
            return name
        while scope:
            full = f"{scope}.{name}"
            full = RENAMED.get(full, full)
            if full in self.fields or full in self.values:
                return full
            scope = scope.rpartition(".")[0]
        # Of another package.
        full = f"atomix.runtime.v1.{simple}"
        return RENAMED.get(full, full)

    def type_in(self, scope, text):
        map_type = re.fullmatch(r"map<(\w+), (\w+)>", text)
        if map_type:
            return f"map<{map_type[1]}, {self.resolve(scope, map_type[2])}>"
        prefix, name = re.fullmatch(r"(repeated )?([\w.]+)", text).groups()
        return (prefix or "") + self.resolve(scope, name)

    def compare_message(self, package, name, text):
        full = f"{package}.{name}"
        if full in RENAMED:
            return
        expected = {}
        for field in filter(None, text.split("; ")):
            pattern = r"(\d+) (\w+): ([^()]+?)(?: \(oneof \w+\))?"
            number, field_name, kind = re.fullmatch(pattern, field).groups()
            expected[int(number)] = (field_name, self.type_in(full, kind))
        additions = range(FIRST_ADDITION, 2**29)
        present = {
            number: field
            for number, field in self.fields[full].items()
            if number not in additions or number in expected
        }
        self.assertEqual(present, expected, full)

    def compare_service(self, package, name, text):
        for method in re.finditer(r"(\w+)\((stream )?(\w+)\) -> (stream )?(\w+)", text):
            method_name, sends, request, receives, response = method.groups()
            expected = (
                bool(sends),
                self.resolve(package, request),
                bool(receives),
                self.resolve(package, response),
            )
            full = f"{package}.{name}/{method_name}"
            self.assertEqual(self.methods.get(full), expected, full)

    def compare(self, path):
        package, compared = None, 0
        for line in path.read_text().splitlines():
            if line.startswith("package "):
                package = line.removeprefix("package ")
            elif line.startswith("service "):
                self.compare_service(package, *re.fullmatch(r"service (\w+): (.*)", line).groups())
            elif line.startswith("enum "):
                name, values = re.fullmatch(r"enum ([\w.]+) \{(.*)\}", line).groups()
                expected = {int(value.split()[0]): value.split()[1] for value in values.split(", ")}
                self.assertEqual(self.values[f"{package}.{name}"], expected, name)
            elif line and not line.startswith("#"):
                self.compare_message(package, *re.fullmatch(r"([\w.]+) \{(.*)\}", line).groups())
            else:
                continue
            compared += 1
        return compared

    def test_control_api(self):
        self.assertGreater(self.compare(HERE / "control.txt"), 40)

    def test_application_api(self):
        self.assertGreater(self.compare(HERE / "api.txt"), 300)


if __name__ == "__main__":
    unittest.main()
