package main

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Damages a history at one place so that it is wrong whatever else happened; nil = there is no such place.
type mutation struct {
	name   string
	damage func(*History, *rand.Rand) *History
}

// Each kind has some that apply to it.
var mutations = []mutation{
	{"a reply that nothing explains", alienReply},
	{"a stale read", staleRead},
	{"a lost write", lostWrite},
	{"a write made twice", doubleWrite},
	{"two holders", twoHolders},
	{"a membership read wrong", wrongMembership},
}

// No client has this number.
const nobody = 1 << 30

// What became of damaged histories.
type mutants struct {
	caught, undecided int
	// Those that passed.
	escaped []string
}

// Damages a good history in each way that applies, and checks that it is found out.
func tryMutants(history *History, seed uint64, limit time.Duration) (mutants, error) {
	random := rand.New(rand.NewPCG(seed, uint64(len(history.Operations))))
	var tried mutants
	for _, mutation := range mutations {
		damaged := mutation.damage(history.clone(), random)
		if damaged == nil {
			continue
		}
		verdict, err := judge(damaged, limit)
		switch {
		case err != nil:
			return tried, err
		case verdict.fails():
			tried.caught++
		case verdict.passes():
			tried.escaped = append(tried.escaped, mutation.name)
		default:
			tried.undecided++
		}
	}
	return tried, nil
}

// One of the operations that are suitable; nil = there is none.
func choose(history *History, random *rand.Rand, suits func(int, *Operation) bool) *Operation {
	var suitable []*Operation
	for at := range history.Operations {
		if suits(at, &history.Operations[at]) {
			suitable = append(suitable, &history.Operations[at])
		}
	}
	if len(suitable) == 0 {
		return nil
	}
	return suitable[random.IntN(len(suitable))]
}

func answered(method string) func(int, *Operation) bool {
	return func(_ int, operation *Operation) bool {
		return operation.Outcome == succeeded && operation.Method == method
	}
}

func alienReply(history *History, random *rand.Rand) *History {
	if history.Header.Kind == "lock" {
		release := choose(history, random, answered("Unlock"))
		if release == nil {
			return nil
		}
		release.Client = nobody
		return history
	}
	operation := choose(history, random, func(_ int, operation *Operation) bool {
		isRead := operation.Method == "Get" || history.Header.Kind == "election"
		return operation.Outcome == succeeded && isRead
	})
	if operation == nil {
		return nil
	}
	operation.Reply.Number += 1 << 60
	operation.Reply.Items = []string{"nobody"}
	operation.Reply.Value = "nobody has written this"
	return history
}

// A read is answered with a version that an earlier one has seen replaced.
func staleRead(history *History, random *rand.Rand) *History {
	if kind := history.Header.Kind; kind != "value" && kind != "map" {
		return nil
	}
	old := map[*Operation]Reply{}
	read := choose(history, random, func(at int, read *Operation) bool {
		if !answered("Get")(at, read) {
			return false
		}
		for _, write := range history.Operations[:at] {
			previous := write.Reply.Previous
			if write.Outcome == succeeded && write.Key == read.Key && previous != nil && write.Return < read.Call {
				old[read] = Reply{Value: previous.Value, Version: previous.Version}
				return true
			}
		}
		return false
	})
	if read == nil {
		return nil
	}
	read.Reply = old[read]
	return history
}

// A write of which a later one, or the end, has told is forgotten.
func lostWrite(history *History, random *rand.Rand) *History {
	switch history.Header.Kind {
	case "value", "map":
		return lostValue(history, random)
	case "list":
		lost := choose(history, random, answered("Append"))
		if items := longest(history); items != nil && lost != nil {
			isLost := func(item string) bool { return item == lost.Arguments.Value }
			*items = slices.DeleteFunc(slices.Clone(*items), isLost)
			return history
		}
	case "counter":
		// Its deltas are so different that no others make up for it.
		last := lastRead(history)
		lost := choose(history, random, answered("Increment"))
		if lost != nil && last != nil && addedOnly(history) {
			last.Reply.Number -= lost.Arguments.Number
			return history
		}
	}
	return nil
}

func lostValue(history *History, random *rand.Rand) *History {
	type place struct{ key, value string }
	seen := map[place]bool{}
	for _, operation := range history.Operations {
		if operation.Outcome == succeeded && operation.Method == "Get" {
			seen[place{operation.Key, operation.Reply.Value}] = true
		}
	}
	lost := choose(history, random, func(_ int, operation *Operation) bool {
		return operation.Outcome == succeeded && !isRead(operation.Method) &&
			seen[place{operation.Key, operation.Arguments.Value}]
	})
	if lost == nil {
		return nil
	}
	lost.Outcome = failed
	return history
}

func doubleWrite(history *History, random *rand.Rand) *History {
	switch history.Header.Kind {
	case "list":
		if items := longest(history); items != nil && len(*items) > 0 {
			at := random.IntN(len(*items))
			*items = append(append([]string(nil), *items...), (*items)[at])
			return history
		}
	case "counter":
		last := lastRead(history)
		double := choose(history, random, answered("Increment"))
		if double != nil && last != nil && addedOnly(history) {
			last.Reply.Number += double.Arguments.Number
			return history
		}
	}
	return nil
}

func addedOnly(history *History) bool {
	for _, operation := range history.Operations {
		if operation.Method == "Set" || operation.Method == "Update" {
			return false
		}
	}
	return true
}

// The read that comes after everything else.
func lastRead(history *History) *Operation {
	last := &history.Operations[len(history.Operations)-1]
	if last.Outcome == succeeded && last.Method == "Get" {
		return last
	}
	return nil
}

// The lock is granted to another one while its holder, which gives it back later, has it.
func twoHolders(history *History, random *rand.Rand) *History {
	if history.Header.Kind != "lock" {
		return nil
	}
	granted := map[int]*Operation{}
	holds := map[*Operation]*Operation{}
	for at := range history.Operations {
		operation := &history.Operations[at]
		if operation.Outcome != succeeded {
			continue
		}
		switch operation.Method {
		case "Lock":
			granted[operation.Client] = operation
		case "Unlock":
			if grant := granted[operation.Client]; grant != nil && grant.Return+1 < operation.Call {
				holds[operation] = grant
			}
		}
	}
	release := choose(history, random, func(_ int, operation *Operation) bool {
		return holds[operation] != nil
	})
	if release == nil {
		return nil
	}
	grant := holds[release]
	second := *grant
	second.Client = nobody
	second.Call, second.Return = grant.Return+1, release.Call-1
	second.Reply.Version++
	history.Operations = append(history.Operations, second)
	history.sort()
	return history
}

// An element is read otherwise than it is, at a time when nobody changes it.
func wrongMembership(history *History, random *rand.Rand) *History {
	if history.Header.Kind != "set" {
		return nil
	}
	read := choose(history, random, func(at int, read *Operation) bool {
		return answered("Contains")(at, read) && undisturbed(history, read)
	})
	if read == nil {
		return nil
	}
	read.Reply.Present = !read.Reply.Present
	return history
}

// Whether each change before a read was answered, and none was under way: as additions and removals that
// were answered take turns, the membership is certain then.
func undisturbed(history *History, read *Operation) bool {
	for at := range history.Operations {
		other := &history.Operations[at]
		if other.Key != read.Key || other.Outcome == failed || isRead(other.Method) {
			continue
		}
		open := other.Outcome == unknown
		if other.Call <= read.Return && (open || other.Return >= read.Call) {
			return false
		}
	}
	return true
}
