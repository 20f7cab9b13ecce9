package main

// A value, or one key of a map.
type entry struct {
	present bool
	value   string
	// 0 = it was written by an operation that was not answered, and nobody has seen it yet.
	version uint64
	// The newest version that was seen.
	floor uint64
}

// Values with a version that only grows. Clients ask only for versions that they have seen, so what
// nobody has seen yet is none of these.
func versionedSteps() steps[entry] {
	return steps[entry]{step: stepVersioned}
}

func stepVersioned(state entry, operation Operation) (bool, entry) {
	code := state.refusal(operation)
	switch operation.Outcome {
	case refused:
		return code == operation.Code, state
	case succeeded:
		if code != "" {
			return false, state
		}
		return state.answered(operation)
	default:
		if code != "" {
			return true, state
		}
		return true, state.changed(operation, 0)
	}
}

// The code with which the operation is refused; empty = it is not.
func (state entry) refusal(operation Operation) string {
	asked := operation.Arguments.Version
	switch operation.Method {
	case "Insert":
		if state.present {
			return "ALREADY_EXISTS"
		}
		return ""
	case "Update", "Delete", "Remove", "Get":
		if !state.present {
			return "NOT_FOUND"
		}
	case "Set", "Put":
		if !state.present && asked != 0 {
			return "ABORTED"
		}
	default:
		return "UNIMPLEMENTED"
	}
	if asked != 0 && asked != state.version {
		return "ABORTED"
	}
	return ""
}

func (state entry) answered(operation Operation) (bool, entry) {
	reply := operation.Reply
	switch operation.Method {
	case "Get", "Delete", "Remove":
		seen, state := state.seen(&Versioned{reply.Value, reply.Version})
		return seen, state.changed(operation, 0)
	case "Insert":
		return reply.Version > state.floor, state.changed(operation, reply.Version)
	}
	seen, state := state.seen(reply.Previous)
	return seen && reply.Version > state.floor, state.changed(operation, reply.Version)
}

// Whether this is what can be seen, which tells its version.
func (state entry) seen(seen *Versioned) (bool, entry) {
	if seen == nil || !state.present {
		return seen == nil && !state.present, state
	}
	if state.version == 0 && seen.Version > state.floor {
		state.version, state.floor = seen.Version, seen.Version
	}
	return seen.Value == state.value && seen.Version == state.version, state
}

func (state entry) changed(operation Operation, version uint64) entry {
	switch operation.Method {
	case "Get":
		return state
	case "Delete", "Remove":
		return entry{floor: state.floor}
	}
	return entry{
		present: true,
		value:   operation.Arguments.Value,
		version: version,
		floor:   max(state.floor, version),
	}
}
