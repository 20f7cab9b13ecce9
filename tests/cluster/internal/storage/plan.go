package storage

import (
	"strings"
)

// The parts of the API's objects that provisioning looks at.
type metadata struct {
	Name              string            `json:"name"`
	Namespace         string            `json:"namespace"`
	UID               string            `json:"uid"`
	Annotations       map[string]string `json:"annotations"`
	DeletionTimestamp string            `json:"deletionTimestamp"`
}

type resources struct {
	Requests map[string]string `json:"requests"`
}

type claim struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		StorageClassName string    `json:"storageClassName"`
		VolumeName       string    `json:"volumeName"`
		VolumeMode       string    `json:"volumeMode"`
		AccessModes      []string  `json:"accessModes"`
		Resources        resources `json:"resources"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

type volume struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		StorageClassName string `json:"storageClassName"`
		ReclaimPolicy    string `json:"persistentVolumeReclaimPolicy"`
		Local            struct {
			Path string `json:"path"`
		} `json:"local"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

// plan is what must happen so that the volumes fit the claims.
type plan struct {
	create []claim
	remove []volume
}

const (
	selectedNode = "volume.kubernetes.io/selected-node"
	// askedProvisioner is set by the controller manager, from the claim's storage class.
	askedProvisioner = "volume.kubernetes.io/storage-provisioner"
)

// makePlan decides; it looks at nothing but its arguments.
func makePlan(claims []claim, volumes []volume) plan {
	exists := map[string]bool{}
	for _, volume := range volumes {
		exists[volume.Metadata.Name] = true
	}
	var result plan
	for _, claim := range claims {
		wanted := claim.Metadata.Annotations[askedProvisioner] == Provisioner &&
			claim.Spec.VolumeName == "" &&
			claim.Metadata.DeletionTimestamp == "" &&
			claim.Metadata.Annotations[selectedNode] != ""
		if wanted && !exists[volumeName(claim)] {
			result.create = append(result.create, claim)
		}
	}
	for _, volume := range volumes {
		ours := volume.Metadata.Annotations[provisionedBy] == Provisioner
		released := volume.Status.Phase == "Released" && volume.Spec.ReclaimPolicy == "Delete"
		if ours && released {
			result.remove = append(result.remove, volume)
		}
	}
	return result
}

// volumeName follows from the claim's UID, so that a repeated attempt meets its
// own volume, and a claim made anew under the same name gets a new disk.
func volumeName(claim claim) string { return "pvc-" + claim.Metadata.UID }

// folderName says to a person whose disk it is.
func folderName(claim claim) string {
	return strings.Join([]string{claim.Metadata.Namespace, claim.Metadata.Name, claim.Metadata.UID}, "_")
}

func newVolume(claim claim, node, folder string) object {
	mode := claim.Spec.VolumeMode
	if mode == "" {
		mode = "Filesystem"
	}
	return object{
		"apiVersion": "v1",
		"kind":       "PersistentVolume",
		"metadata": object{
			"name":        volumeName(claim),
			"annotations": object{provisionedBy: Provisioner},
		},
		"spec": object{
			"capacity":                      object{"storage": claim.Spec.Resources.Requests["storage"]},
			"accessModes":                   claim.Spec.AccessModes,
			"persistentVolumeReclaimPolicy": "Delete",
			"storageClassName":              claim.Spec.StorageClassName,
			"volumeMode":                    mode,
			"local":                         object{"path": folder},
			"claimRef": object{
				"apiVersion": "v1",
				"kind":       "PersistentVolumeClaim",
				"namespace":  claim.Metadata.Namespace,
				"name":       claim.Metadata.Name,
				"uid":        claim.Metadata.UID,
			},
			"nodeAffinity": object{"required": object{"nodeSelectorTerms": []object{{
				"matchExpressions": []object{{
					"key": "kubernetes.io/hostname", "operator": "In", "values": []string{node},
				}},
			}}}},
		},
	}
}
