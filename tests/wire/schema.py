"""Messages and clients made from the tables of api.txt, without any generated code."""

import re
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf import duration_pb2, timestamp_pb2

Field = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "bool": Field.TYPE_BOOL,
    "bytes": Field.TYPE_BYTES,
    "int64": Field.TYPE_INT64,
    "string": Field.TYPE_STRING,
    "uint32": Field.TYPE_UINT32,
    "uint64": Field.TYPE_UINT64,
}
# How long an answer may take, in seconds.
PATIENCE = 60
# Where a type is looked up that its own package does not have.
COMMON = "atomix.runtime.v1"


class Schema:
    """All packages of a file of tables."""

    def __init__(self, path):
        self.messages = {}  # full name -> text of its fields
        self.methods = {}  # "/package.Service/Method" -> (request, response, is it a stream)
        package = None
        for line in Path(path).read_text().splitlines():
            line = line.strip()
            if line.startswith("package "):
                package = line.removeprefix("package ")
            elif line.startswith("service "):
                self._read_service(package, line)
            elif line and not line.startswith("#"):
                name, fields = re.fullmatch(r"([\w.]+) \{(.*)\}", line).groups()
                self.messages.setdefault(f"{package}.{name}", fields)
        self._pool = descriptor_pool.DescriptorPool()
        for known in (duration_pb2, timestamp_pb2):
            self._pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
        packages = {name_of_package(name) for name in self.messages}
        for package in sorted(packages, key=lambda package: package != COMMON):
            self._pool.Add(self._file(package))

    def _read_service(self, package, line):
        name, methods = re.fullmatch(r"service (\w+): (.*)", line).groups()
        for method in re.finditer(r"(\w+)\((\w+)\) -> (stream )?(\w+)", methods):
            method_name, request, stream, response = method.groups()
            path = f"/{package}.{name}/{method_name}"
            self.methods[path] = (f"{package}.{request}", f"{package}.{response}", bool(stream))

    def _file(self, package):
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{package}.proto",
            package=package,
            syntax="proto3",
            dependency=["google/protobuf/duration.proto", "google/protobuf/timestamp.proto"],
        )
        if package != COMMON:
            file.dependency.append(f"{COMMON}.proto")
        nests = {"": file.message_type}
        names = (name for name in self.messages if name_of_package(name) == package)
        for full_name in sorted(names, key=lambda name: name.count(".")):
            name = full_name.removeprefix(f"{package}.")
            outer, _, last = name.rpartition(".")
            message = nests[outer].add(name=last)
            nests[name] = message.nested_type
            for text in filter(None, self.messages[full_name].split("; ")):
                self._add_field(message, full_name, text)
        return file

    def _add_field(self, message, full_name, text):
        pattern = r"(\d+) (\w+): (repeated )?([\w.]+)(?: \(oneof (\w+)\))?"
        number, name, repeated, kind, oneof = re.fullmatch(pattern, text).groups()
        field = message.field.add(name=name, number=int(number))
        field.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
        if kind in SCALARS:
            field.type = SCALARS[kind]
        else:
            field.type = Field.TYPE_MESSAGE
            field.type_name = "." + self._resolve(full_name, kind)
        if oneof:
            names = [declared.name for declared in message.oneof_decl]
            if oneof not in names:
                message.oneof_decl.add(name=oneof)
                names.append(oneof)
            field.oneof_index = names.index(oneof)

    def _resolve(self, full_name, kind):
        if kind.startswith("google."):
            return kind
        scope = full_name
        while scope:
            if f"{scope}.{kind}" in self.messages:
                return f"{scope}.{kind}"
            scope = scope.rpartition(".")[0]
        assert f"{COMMON}.{kind}" in self.messages, f"{full_name} uses {kind}, which no table has"
        return f"{COMMON}.{kind}"

    def message(self, full_name):
        """The class of a message."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(full_name))


def name_of_package(full_name):
    """`atomix.runtime.map.v1` of `atomix.runtime.map.v1.Event.Inserted`."""
    return re.match(r"(.*?\.v1)\.", full_name)[1]


class Client:
    """One service over one channel: a method of Python for each of its own."""

    def __init__(self, schema, channel, service, called):
        self._schema, self._channel, self._service, self._called = schema, channel, service, called

    def __getattr__(self, method):
        path = f"/{self._service}/{method}"
        if path not in self._schema.methods:
            raise AttributeError(f"no table has {path}")
        request, response, is_stream = self._schema.methods[path]
        request, response = self._schema.message(request), self._schema.message(response)
        kind = self._channel.unary_stream if is_stream else self._channel.unary_unary
        call = kind(
            path,
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )

        def invoke(**fields):
            self._called.add(path)
            return call(request(**fields), timeout=PATIENCE)

        return invoke

    def close(self):
        """Ends the connection."""
        self._channel.close()


def connect(address):
    """A connection of its own; grpc shares one between channels otherwise."""
    return grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
