package storage

import (
	"testing"
)

func waitingClaim() claim {
	var waiting claim
	waiting.Metadata = metadata{
		Name: "data-0", Namespace: "ns", UID: "uid-1",
		Annotations: map[string]string{selectedNode: "node-2", askedProvisioner: Provisioner},
	}
	waiting.Spec.StorageClassName = "local"
	waiting.Spec.Resources.Requests = map[string]string{"storage": "1Gi"}
	return waiting
}

func releasedVolume() volume {
	var released volume
	released.Metadata = metadata{Name: "pvc-uid-1", Annotations: map[string]string{provisionedBy: Provisioner}}
	released.Spec.ReclaimPolicy = "Delete"
	released.Status.Phase = "Released"
	return released
}

func TestOnlyClaimsThatWaitForUsGetAVolume(t *testing.T) {
	cases := []struct {
		name   string
		change func(*claim)
		want   int
	}{
		{"a claim with a node", func(*claim) {}, 1},
		{"no node was chosen yet", func(c *claim) { delete(c.Metadata.Annotations, selectedNode) }, 0},
		{"a storage class of ours by another name", func(c *claim) { c.Spec.StorageClassName = "other" }, 1},
		{"another provisioner", func(c *claim) { c.Metadata.Annotations[askedProvisioner] = "example.com/other" }, 0},
		{"bound already", func(c *claim) { c.Spec.VolumeName = "pv" }, 0},
		{"being deleted", func(c *claim) { c.Metadata.DeletionTimestamp = "2030-01-01T00:00:00Z" }, 0},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			changed := waitingClaim()
			test.change(&changed)
			if got := len(makePlan([]claim{changed}, nil).create); got != test.want {
				t.Fatalf("%d volumes are made, want %d", got, test.want)
			}
		})
	}
}

func TestVolumeThatExistsIsNotMadeAgain(t *testing.T) {
	var existing volume
	existing.Metadata.Name = volumeName(waitingClaim())
	if due := makePlan([]claim{waitingClaim()}, []volume{existing}); len(due.create) != 0 {
		t.Fatalf("made again: %+v", due.create)
	}
}

func TestOnlyReleasedVolumesOfOursAreRemoved(t *testing.T) {
	cases := []struct {
		name   string
		change func(*volume)
		want   int
	}{
		{"released", func(*volume) {}, 1},
		{"bound", func(v *volume) { v.Status.Phase = "Bound" }, 0},
		{"kept by its policy", func(v *volume) { v.Spec.ReclaimPolicy = "Retain" }, 0},
		{"made by someone else", func(v *volume) { v.Metadata.Annotations = nil }, 0},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			changed := releasedVolume()
			test.change(&changed)
			if got := len(makePlan(nil, []volume{changed}).remove); got != test.want {
				t.Fatalf("%d volumes are removed, want %d", got, test.want)
			}
		})
	}
}

func TestFolderOfAClaimMadeAnewIsAnotherOne(t *testing.T) {
	first, second := waitingClaim(), waitingClaim()
	second.Metadata.UID = "uid-2"
	if folderName(first) == folderName(second) || volumeName(first) == volumeName(second) {
		t.Fatal("a new claim would find the old claim's data")
	}
}
