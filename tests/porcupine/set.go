package main

// One element of a set.
type membership struct {
	present bool
	// How many additions and removals with unknown outcome had an effect. They are interchangeable, so
	// they may be taken in the order of their calls: else every choice of them would be tried.
	additions, removals int
}

func setSteps() steps[membership] {
	return steps[membership]{step: stepSet}
}

func stepSet(state membership, operation Operation) (bool, membership) {
	if operation.Outcome == unknown {
		return stepSetUnknown(state, operation)
	}
	reply := operation.Reply.Present
	switch operation.Method {
	case "Contains":
		return operation.Outcome == succeeded && reply == state.present, state
	case "Add":
		if operation.Outcome == refused {
			return operation.Code == "ALREADY_EXISTS" && state.present, state
		}
		possible := !state.present && reply
		state.present = true
		return possible, state
	case "Remove":
		if operation.Outcome == refused {
			return operation.Code == "NOT_FOUND" && !state.present, state
		}
		possible := state.present && reply
		state.present = false
		return possible, state
	}
	return false, state
}

func stepSetUnknown(state membership, operation Operation) (bool, membership) {
	turn, adds := &state.removals, operation.Method == "Add"
	if adds {
		turn = &state.additions
	}
	if operation.ordinal != *turn || state.present == adds {
		return false, state
	}
	*turn++
	state.present = adds
	return true, state
}
