package main

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

const limit = 10 * time.Second

// A history in the making. Operations follow each other in time unless they are said to overlap.
type builder struct {
	history History
	now     int64
}

func of(kind string) *builder {
	return &builder{history: History{Header: Header{Kind: kind, Name: kind + "-0"}}}
}

func (builder *builder) add(operation Operation) *builder {
	builder.now += 10
	operation.Call = builder.now
	if operation.Outcome == "" {
		operation.Outcome = succeeded
	}
	if operation.Outcome != unknown {
		operation.Return = builder.now + 5
	}
	builder.history.Operations = append(builder.history.Operations, operation)
	return builder
}

// Makes the last operation run until the end of so many that follow it.
func (builder *builder) overlapping(following int64) *builder {
	last := &builder.history.Operations[len(builder.history.Operations)-1]
	last.Return += following * 10
	return builder
}

func (builder *builder) expect(t *testing.T, linearizable bool) {
	t.Helper()
	verdict, err := judge(&builder.history, limit)
	if err != nil {
		t.Fatal(err)
	}
	expected := porcupine.Illegal
	if linearizable {
		expected = porcupine.Ok
	}
	if verdict.result != expected {
		t.Errorf("it is %s, not %s", verdict.result, expected)
	}
}

func (builder *builder) expectOnce(t *testing.T, once bool) {
	t.Helper()
	if err := exactlyOnce(&builder.history); (err == nil) != once {
		t.Errorf("exactly once: %v", err)
	}
}

func increment(delta, value int64) Operation {
	return Operation{Method: "Increment", Arguments: Arguments{Number: delta}, Reply: Reply{Number: value}}
}

func count(value int64) Operation {
	return Operation{Method: "Get", Reply: Reply{Number: value}}
}

func with(outcome, code string, operation Operation) Operation {
	operation.Outcome, operation.Code, operation.Reply = outcome, code, Reply{}
	return operation
}

func perhaps(operation Operation) Operation {
	return with(unknown, "DEADLINE_EXCEEDED", operation)
}

func by(client int, operation Operation) Operation {
	operation.Client = client
	return operation
}

func TestACounterIsLinearizable(t *testing.T) {
	of("counter").add(increment(5, 5)).add(increment(2, 7)).add(count(7)).expect(t, true)
	// Two at once, in either order.
	of("counter").add(increment(5, 7)).overlapping(1).add(increment(2, 2)).add(count(7)).expect(t, true)
	set := Operation{Method: "Set", Arguments: Arguments{Number: 9}, Reply: Reply{Number: 9}}
	update := Operation{Method: "Update", Arguments: Arguments{Check: 9, Number: 4}, Reply: Reply{Number: 4}}
	of("counter").add(set).add(update).add(with(refused, "ABORTED", update)).add(count(4)).expect(t, true)
	of("counter").add(set).add(with(refused, "ABORTED", update)).expect(t, false)
}

func TestAStaleReadOfACounterIsFound(t *testing.T) {
	of("counter").add(increment(5, 5)).add(increment(2, 7)).add(count(5)).expect(t, false)
	// Not stale: the second increment is still under way.
	of("counter").add(increment(5, 5)).add(increment(2, 7)).overlapping(1).add(count(5)).expect(t, true)
}

func TestALostUpdateOfACounterIsFound(t *testing.T) {
	of("counter").add(increment(5, 5)).add(increment(2, 2)).add(count(2)).expect(t, false)
	of("counter").add(increment(5, 5)).add(increment(2, 2)).add(count(2)).expectOnce(t, false)
}

func TestADoubleIncrementIsFound(t *testing.T) {
	of("counter").add(increment(5, 5)).add(count(10)).expect(t, false)
	of("counter").add(increment(5, 5)).add(count(10)).expectOnce(t, false)
	// Also of one that was not answered: at most once.
	of("counter").add(perhaps(increment(5, 0))).add(count(10)).expect(t, false)
	of("counter").add(perhaps(increment(5, 0))).add(count(10)).expectOnce(t, false)
}

func TestAnUnknownIncrementHappensLateOrNever(t *testing.T) {
	for _, value := range []int64{0, 5} {
		of("counter").add(perhaps(increment(5, 0))).add(count(value)).expect(t, true)
		of("counter").add(perhaps(increment(5, 0))).add(count(value)).expectOnce(t, true)
	}
	of("counter").add(perhaps(increment(5, 0))).add(count(0)).add(count(5)).expect(t, true)
	of("counter").add(perhaps(increment(5, 0))).add(count(5)).add(count(0)).expect(t, false)
	// Not before it was called.
	of("counter").add(count(5)).add(perhaps(increment(5, 0))).expect(t, false)
	// What failed did not happen.
	of("counter").add(with(failed, "UNAVAILABLE", increment(5, 0))).add(count(5)).expect(t, false)
}

func put(value string, version uint64, previous *Versioned) Operation {
	return Operation{
		Key: "k", Method: "Put", Arguments: Arguments{Value: value},
		Reply: Reply{Version: version, Previous: previous},
	}
}

func get(value string, version uint64) Operation {
	return Operation{Key: "k", Method: "Get", Reply: Reply{Value: value, Version: version}}
}

func removed(value string, version uint64) Operation {
	operation := get(value, version)
	operation.Method = "Remove"
	return operation
}

func asking(version uint64, operation Operation) Operation {
	operation.Arguments.Version = version
	return operation
}

func missing() Operation { return with(refused, "NOT_FOUND", get("", 0)) }

func TestAMapIsLinearizable(t *testing.T) {
	first := &Versioned{"a", 3}
	of("map").add(missing()).add(put("a", 3, nil)).add(get("a", 3)).add(put("b", 4, first)).
		add(removed("b", 4)).add(missing()).expect(t, true)
	of("map").add(put("a", 3, nil)).add(asking(3, put("b", 4, first))).
		add(with(refused, "ABORTED", asking(3, put("c", 0, nil)))).add(get("b", 4)).expect(t, true)
	// Each key by itself.
	other := get("z", 1)
	other.Key = "other"
	of("map").add(put("a", 3, nil)).add(other).expect(t, false)
}

func TestAStaleReadOfAMapIsFound(t *testing.T) {
	of("map").add(put("a", 3, nil)).add(put("b", 4, &Versioned{"a", 3})).add(get("a", 3)).expect(t, false)
	of("map").add(put("a", 3, nil)).add(missing()).expect(t, false)
	of("map").add(put("a", 3, nil)).add(removed("a", 3)).add(get("a", 3)).expect(t, false)
}

func TestALostUpdateOfAMapIsFound(t *testing.T) {
	// Both replace the first.
	first := &Versioned{"a", 3}
	of("map").add(put("a", 3, nil)).add(asking(3, put("b", 4, first))).
		add(asking(3, put("c", 5, first))).expect(t, false)
}

func TestAVersionNeverComesAgain(t *testing.T) {
	of("map").add(put("a", 3, nil)).add(removed("a", 3)).add(put("b", 3, nil)).expect(t, false)
	of("map").add(put("a", 3, nil)).add(removed("a", 3)).add(put("b", 2, nil)).expect(t, false)
}

func TestAnUnknownPutIsSeenOrNot(t *testing.T) {
	lost := perhaps(put("b", 0, nil))
	of("map").add(put("a", 3, nil)).add(lost).add(get("a", 3)).add(get("b", 4)).expect(t, true)
	of("map").add(put("a", 3, nil)).add(lost).add(get("a", 3)).expect(t, true)
	of("map").add(put("a", 3, nil)).add(lost).add(get("b", 4)).add(get("a", 3)).expect(t, false)
	of("map").add(put("a", 3, nil)).add(lost).add(get("b", 4)).add(get("b", 5)).expect(t, false)
	of("map").add(put("a", 3, nil)).add(lost).add(get("b", 2)).expect(t, false)
	of("map").add(put("a", 3, nil)).add(lost).add(put("c", 5, &Versioned{"b", 4})).expect(t, true)
	// A condition on what it has replaced holds no more.
	late := asking(3, put("c", 0, nil))
	of("map").add(put("a", 3, nil)).add(lost).add(with(refused, "ABORTED", late)).
		add(get("b", 4)).expect(t, true)
	of("map").add(put("a", 3, nil)).add(with(refused, "ABORTED", late)).expect(t, false)
}

func TestAValueIsInsertedOnceAndDeleted(t *testing.T) {
	insert := Operation{Method: "Insert", Arguments: Arguments{Value: "a"}, Reply: Reply{Version: 2}}
	again := with(refused, "ALREADY_EXISTS", insert)
	remove := Operation{Method: "Delete", Reply: Reply{Value: "a", Version: 2}}
	of("value").add(insert).add(again).add(remove).expect(t, true)
	of("value").add(insert).add(remove).add(again).expect(t, false)
	of("value").add(insert).add(insert).expect(t, false)
}

func append1(value string) Operation {
	return Operation{Method: "Append", Arguments: Arguments{Value: value}}
}

func at(index int, value string) Operation {
	return Operation{Method: "Get", Arguments: Arguments{Index: index}, Reply: Reply{Value: value}}
}

func items(values ...string) Operation {
	return Operation{Method: "Items", Reply: Reply{Items: values}}
}

func TestAListIsLinearizable(t *testing.T) {
	beyond := with(refused, "OUT_OF_RANGE", at(1, ""))
	size := Operation{Method: "Size", Reply: Reply{Number: 2}}
	of("list").add(append1("a")).add(beyond).add(append1("b")).add(at(1, "b")).add(size).
		add(items("a", "b")).expect(t, true)
	of("list").add(append1("a")).overlapping(1).add(append1("b")).add(items("b", "a")).expect(t, true)
	of("list").add(append1("a")).add(append1("b")).add(items("b", "a")).expect(t, false)
	of("list").add(append1("a")).add(at(0, "b")).add(items("a")).expect(t, false)
	of("list").add(append1("a")).add(append1("b")).add(beyond).add(items("a", "b")).expect(t, false)
	if _, err := judge(&of("list").add(append1("a")).history, limit); err == nil {
		t.Error("a list that nobody has read cannot be judged")
	}
}

func TestEachAcknowledgedItemIsThereOnce(t *testing.T) {
	lost := perhaps(append1("b"))
	for _, case1 := range []struct {
		builder *builder
		right   bool
	}{
		{of("list").add(append1("a")).add(items("a")), true},
		{of("list").add(append1("a")).add(items()), false},
		{of("list").add(append1("a")).add(items("a", "a")), false},
		{of("list").add(append1("a")).add(items("a", "z")), false},
		{of("list").add(lost).add(items()), true},
		{of("list").add(lost).add(items("b")), true},
		{of("list").add(lost).add(items("b", "b")), false},
		{of("list").add(with(failed, "UNAVAILABLE", append1("b"))).add(items("b")), false},
	} {
		case1.builder.expectOnce(t, case1.right)
		case1.builder.expect(t, case1.right)
	}
}

func element(method string, present bool) Operation {
	return Operation{Key: "e", Method: method, Reply: Reply{Present: present}}
}

func TestASetIsLinearizable(t *testing.T) {
	add, remove := element("Add", true), element("Remove", true)
	again, gone := with(refused, "ALREADY_EXISTS", add), with(refused, "NOT_FOUND", remove)
	is, isNot := element("Contains", true), element("Contains", false)
	of("set").add(isNot).add(gone).add(add).add(is).add(again).add(remove).add(isNot).expect(t, true)
	of("set").add(add).add(isNot).expect(t, false)
	of("set").add(add).add(add).expect(t, false)
	of("set").add(add).add(remove).add(remove).expect(t, false)
	of("set").add(add).add(gone).expect(t, false)
	// Each of two unknown additions may have happened, late.
	two := func() *builder { return of("set").add(perhaps(add)).add(perhaps(add)) }
	two().add(isNot).add(is).add(remove).add(isNot).add(is).add(remove).expect(t, true)
	two().add(remove).add(remove).add(remove).expect(t, false)
}

func lock(client int, version uint64) Operation {
	return Operation{Client: client, Method: "Lock", Reply: Reply{Version: version}}
}

func unlock(client int) Operation { return Operation{Client: client, Method: "Unlock"} }

func TestALockHasOneHolder(t *testing.T) {
	look := Operation{Client: 3, Method: "GetLock", Reply: Reply{Version: 2}}
	busy := with(refused, "ABORTED", lock(2, 0))
	free := with(refused, "NOT_FOUND", look)
	of("lock").add(lock(1, 2)).add(look).add(busy).add(unlock(1)).add(free).add(lock(2, 5)).
		add(unlock(2)).expect(t, true)
	// One that waits is granted when the other one gives it back.
	of("lock").add(lock(1, 2)).add(lock(2, 5)).overlapping(1).add(unlock(1)).add(unlock(2)).expect(t, true)
	of("lock").add(lock(1, 2)).add(unlock(1)).add(busy).expect(t, false)
	of("lock").add(lock(1, 2)).add(free).expect(t, false)
	of("lock").add(lock(1, 2)).add(with(refused, "ABORTED", unlock(1))).expect(t, false)
}

func TestTwoHoldersOfALockAreFound(t *testing.T) {
	of("lock").add(lock(1, 2)).add(lock(2, 3)).add(unlock(1)).add(unlock(2)).expect(t, false)
	of("lock").add(lock(1, 2)).add(lock(2, 3)).expect(t, false)
	// A token that goes back.
	of("lock").add(lock(1, 2)).add(unlock(1)).add(lock(2, 1)).expect(t, false)
}

func TestALockIsLostWithTheConnectionOfItsHolder(t *testing.T) {
	lost := perhaps(by(1, Operation{Method: "Lost"}))
	of("lock").add(lock(1, 2)).add(lost).add(lock(2, 3)).expect(t, true)
	of("lock").add(lock(1, 2)).add(lost).add(lock(2, 3)).add(unlock(1)).expect(t, false)
	// A grant that did not arrive may be withdrawn, or not yet.
	unheard := perhaps(lock(1, 0))
	busy := with(refused, "ABORTED", lock(2, 0))
	of("lock").add(unheard).add(lost).add(busy).add(lock(2, 3)).expect(t, true)
	of("lock").add(unheard).add(lost).add(lock(2, 3)).add(unlock(2)).expect(t, true)
	of("lock").add(busy).expect(t, false)
	// A return of it that was not answered.
	of("lock").add(lock(1, 2)).add(perhaps(unlock(1))).add(lock(2, 3)).expect(t, true)
}

func tallied(method string, number, check, before int64) Operation {
	return Operation{
		Key: "k", Method: method, Arguments: Arguments{Number: number, Check: check}, Reply: Reply{Number: before},
	}
}

func TestACounterMapIsLinearizable(t *testing.T) {
	of("countermap").add(missing()).add(tallied("Increment", 5, 0, 0)).add(tallied("Update", 9, 5, 5)).
		add(tallied("Get", 0, 0, 9)).add(tallied("Remove", 0, 9, 9)).add(missing()).expect(t, true)
	of("countermap").add(tallied("Increment", 5, 0, 0)).add(tallied("Increment", 5, 0, 0)).expect(t, false)
	of("countermap").add(tallied("Insert", 5, 0, 0)).add(tallied("Insert", 5, 0, 0)).expect(t, false)
	of("countermap").add(tallied("Set", 5, 0, 0)).add(tallied("Update", 9, 4, 4)).expect(t, false)
	of("countermap").add(perhaps(tallied("Increment", 5, 0, 0))).add(missing()).
		add(tallied("Get", 0, 0, 5)).expect(t, true)
	of("countermap").add(perhaps(tallied("Increment", 5, 0, 0))).add(tallied("Get", 0, 0, 10)).expect(t, false)
}

func elect(method, name string, term uint64, line ...string) Operation {
	return Operation{
		Method: method, Arguments: Arguments{Value: name}, Reply: Reply{Version: term, Items: line},
	}
}

func TestAnElectionIsLinearizable(t *testing.T) {
	three := func() *builder {
		return of("election").add(elect("Enter", "a", 2, "a")).add(elect("Enter", "b", 2, "a", "b")).
			add(elect("Enter", "c", 2, "a", "b", "c"))
	}
	three().add(elect("Promote", "c", 2, "a", "c", "b")).add(elect("Anoint", "b", 7, "b", "a", "c")).
		add(elect("Demote", "b", 8, "a", "c", "b")).add(elect("Enter", "b", 8, "a", "c", "b")).expect(t, true)
	three().add(elect("Withdraw", "a", 2, "b", "c")).expect(t, false)
	three().add(elect("Withdraw", "a", 5, "b", "c")).add(elect("GetTerm", "", 2, "a", "b", "c")).expect(t, false)
	of("election").add(elect("Enter", "a", 2, "a")).add(elect("Withdraw", "a", 3)).add(elect("GetTerm", "", 0)).
		add(elect("Enter", "b", 3, "b")).expect(t, false)
	of("election").add(elect("Enter", "a", 2, "a")).add(elect("Withdraw", "a", 3)).add(elect("GetTerm", "", 0)).
		add(elect("Enter", "b", 4, "b")).expect(t, true)
}

func TestTwoLeadersAreFound(t *testing.T) {
	both := func() *builder {
		return of("election").add(elect("Enter", "a", 2, "a")).add(elect("Enter", "b", 2, "a", "b"))
	}
	both().add(elect("GetTerm", "", 3, "b", "a")).expect(t, false)
	// With its connection a candidate goes, at some time.
	lost := func() *builder { return both().add(perhaps(elect("Lost", "a", 0))) }
	lost().add(elect("GetTerm", "", 2, "a", "b")).add(elect("GetTerm", "", 5, "b")).expect(t, true)
	lost().add(elect("GetTerm", "", 5, "b")).add(elect("GetTerm", "", 6, "b")).expect(t, false)
	lost().add(elect("GetTerm", "", 5, "b")).add(elect("GetTerm", "", 2, "a", "b")).expect(t, false)
}

func valued(method, value string, told ...string) Operation {
	return Operation{Key: "k", Method: method, Arguments: Arguments{Value: value}, Reply: Reply{Items: told}}
}

func TestAMultimapIsLinearizable(t *testing.T) {
	of("multimap").add(valued("Put", "b")).add(valued("Put", "a")).add(valued("Get", "", "a", "b")).
		add(with(refused, "ALREADY_EXISTS", valued("Put", "a"))).add(valued("Remove", "a")).
		add(with(refused, "NOT_FOUND", valued("Remove", "a"))).add(valued("Replace", "c d", "b")).
		add(valued("Get", "", "c", "d")).expect(t, true)
	of("multimap").add(valued("Put", "b")).add(valued("Get", "")).expect(t, false)
	of("multimap").add(valued("Put", "b")).add(valued("Put", "b")).expect(t, false)
	of("multimap").add(valued("Put", "b")).add(valued("Replace", "c")).add(valued("Get", "", "c")).expect(t, false)
	of("multimap").add(perhaps(valued("Replace", "c"))).add(valued("Get", "")).add(valued("Get", "", "c")).expect(t, true)
}

func kept(method, key string, index int64, value string) Operation {
	return Operation{
		Method: method, Arguments: Arguments{Key: key, Value: value},
		Reply: Reply{Key: key, Number: index, Value: value},
	}
}

func TestAnIndexedMapIsLinearizable(t *testing.T) {
	first, last := kept("FirstEntry", "a", 1, "x"), kept("LastEntry", "b", 2, "y")
	first.Arguments, last.Arguments = Arguments{}, Arguments{}
	both := func() *builder {
		return of("indexedmap").add(kept("Append", "a", 1, "x")).add(kept("Append", "b", 2, "y"))
	}
	both().add(first).add(last).add(with(refused, "ALREADY_EXISTS", kept("Append", "a", 0, "z"))).
		add(kept("Remove", "a", 1, "x")).add(kept("Append", "a", 3, "z")).add(kept("Update", "a", 3, "w")).
		add(kept("Get", "a", 3, "w")).expect(t, true)
	both().add(kept("Remove", "b", 2, "y")).add(kept("Append", "b", 2, "y")).expect(t, false)
	both().add(kept("Remove", "a", 1, "x")).add(first).expect(t, false)
	both().add(kept("Append", "a", 3, "z")).expect(t, false)
	none := with(refused, "NOT_FOUND", first)
	of("indexedmap").add(none).add(perhaps(kept("Append", "a", 0, "x"))).add(none).add(first).expect(t, true)
	of("indexedmap").add(perhaps(kept("Append", "a", 0, "x"))).add(kept("Append", "b", 2, "y")).add(first).expect(t, true)
	of("indexedmap").add(kept("Append", "b", 2, "y")).expect(t, false)
}
