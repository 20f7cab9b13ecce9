package main

// One key of a counter map. Replies tell the number before, but for that of Get.
type tally struct {
	present bool
	number  int64
}

func countermapSteps() steps[tally] {
	return steps[tally]{step: stepCountermap}
}

func stepCountermap(state tally, operation Operation) (bool, tally) {
	next, code := state.after(operation)
	switch operation.Outcome {
	case succeeded:
		told := operation.Reply.Number
		return code == "" && (told == state.number || operation.Method == "Insert"), next
	case refused:
		return code == operation.Code, state
	default:
		return true, next
	}
}

// What the key is afterwards, and the code with which it refuses; it stays as it is then.
func (state tally) after(operation Operation) (tally, string) {
	arguments := operation.Arguments
	switch operation.Method {
	case "Get", "Update", "Remove":
		if !state.present {
			return state, "NOT_FOUND"
		}
		if operation.Method != "Get" && state.number != arguments.Check {
			return state, "ABORTED"
		}
	}
	switch operation.Method {
	case "Get":
		return state, ""
	case "Remove":
		return tally{}, ""
	case "Set", "Update":
		return tally{true, arguments.Number}, ""
	case "Insert":
		if state.present {
			return state, "ALREADY_EXISTS"
		}
		return tally{true, arguments.Number}, ""
	case "Increment", "Decrement":
		number, code := counted(state.number, operation)
		return tally{state.present || code == "", number}, code
	}
	return state, "UNIMPLEMENTED"
}
