package main

import "math"

// A counter: one number.
func counterSteps() steps[int64] {
	return steps[int64]{step: stepCounter}
}

func stepCounter(value int64, operation Operation) (bool, int64) {
	next, code := counted(value, operation)
	switch operation.Outcome {
	case succeeded:
		return code == "" && next == operation.Reply.Number, next
	case refused:
		return code == operation.Code, value
	default:
		return true, next
	}
}

// What the counter is afterwards, and the code with which it refuses; it stays as it is then.
func counted(value int64, operation Operation) (int64, string) {
	arguments := operation.Arguments
	switch operation.Method {
	case "Set":
		return arguments.Number, ""
	case "Update":
		if value != arguments.Check {
			return value, "ABORTED"
		}
		return arguments.Number, ""
	case "Increment":
		return sum(value, arguments.Number)
	case "Decrement":
		if arguments.Number == math.MinInt64 {
			return value, "OUT_OF_RANGE"
		}
		return sum(value, -arguments.Number)
	case "Get":
		return value, ""
	}
	return value, "UNIMPLEMENTED"
}

func sum(value, delta int64) (int64, string) {
	sum := value + delta
	if (sum > value) != (delta > 0) && delta != 0 {
		return value, "OUT_OF_RANGE"
	}
	return sum, ""
}
