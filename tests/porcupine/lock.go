package main

// A lock. Each client has a connection of its own, which is the owner of what it locks; a client
// whose connection ends goes on as another one.
type holding struct {
	// Clients count from 1; 0 = it is free.
	holder int
	// 0 = it was granted by an answer that did not arrive, and nobody has seen it.
	version uint64
	// The newest version that was seen.
	floor uint64
	// Nobody has noticed yet that it is held, by a grant that did not arrive.
	unnoticed bool
}

func lockSteps() steps[holding] {
	return steps[holding]{step: stepLock}
}

// Beside the methods there is "Lost": a client may have lost what it holds, with its connection or by
// giving up a call, at any time after the call of this.
func stepLock(state holding, operation Operation) (bool, holding) {
	if operation.Outcome == unknown {
		return true, state.perhaps(operation)
	}
	version := operation.Reply.Version
	switch operation.Method {
	case "Lock":
		if operation.Outcome == refused {
			possible := operation.Code == "ABORTED" && state.holder != 0
			state.unnoticed = false
			return possible, state
		}
		granted := holding{holder: operation.Client, version: version, floor: version}
		return state.holder == 0 && version > state.floor, granted
	case "Unlock":
		if operation.Outcome == refused {
			return operation.Code == "ABORTED" && state.holder != operation.Client, state
		}
		return state.holder == operation.Client, state.freed()
	case "GetLock":
		if operation.Outcome == refused {
			return operation.Code == "NOT_FOUND" && state.holder == 0, state
		}
		return state.seen(version)
	}
	return false, state
}

func (state holding) perhaps(operation Operation) holding {
	switch operation.Method {
	case "Lock":
		if state.holder == 0 {
			state.holder, state.unnoticed = operation.Client, true
		}
	case "Unlock", "Lost":
		// What nobody has noticed may as well not have happened.
		if state.holder == operation.Client && !state.unnoticed {
			return state.freed()
		}
	}
	return state
}

func (state holding) freed() holding {
	return holding{floor: state.floor}
}

func (state holding) seen(version uint64) (bool, holding) {
	if state.holder == 0 {
		return false, state
	}
	if state.version == 0 && version > state.floor {
		state.version, state.floor = version, version
	}
	state.unnoticed = false
	return state.version == version, state
}
